// Tokens to statements. The grammar is Jinja's; statements and filters that we do not have are
// refused by name and line.
#pragma once

#include <string_view>

#include "espalier/text/jinja_ast_internal.h"

namespace espalier::text::jinja {

/// Throws Error(kInput) on a syntax error, Error(kUnsupported) on a statement, filter or test we do
/// not have.
Body parse_template(std::string_view source);

/// Whether the evaluator has a filter or a test of this name.
bool has_filter(std::string_view name);
bool has_test(std::string_view name);

}  // namespace espalier::text::jinja
