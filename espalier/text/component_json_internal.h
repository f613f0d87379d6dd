// Reading the small component objects of tokenizer.json (normalizer, pre-tokenizer, decoder) with
// our errors.
#pragma once

#include <string>
#include <string_view>

#include "espalier/base/json_internal.h"
#include "espalier/text/regex_internal.h"

namespace espalier::text {

/// Sequences inside sequences deeper than this are refused.
inline constexpr int kMaxComponentDepth = 16;
/// Steps of one component list; more are refused.
inline constexpr std::size_t kMaxComponentSteps = 64;

/// The object's "type". Throws Error(kInput) when there is none.
std::string component_type(const Json& object, std::string_view what);
/// A member of a given type; the default when absent or null. Error(kInput) on another type.
bool bool_member(const Json& object, const char* key, bool fallback);
std::string string_member(const Json& object, const char* key, std::string_view fallback);
std::string required_string(const Json& object, const char* key, std::string_view what);
std::int64_t int_member(const Json& object, const char* key, std::int64_t fallback);
/// {"String": "..."} or {"Regex": "..."}.
Regex pattern_member(const Json& object, std::string_view what);
/// The text of {"String": "..."} when `pattern` is that.
bool is_literal_pattern(const Json& object, std::string* literal);
/// The elements of a Sequence under `key`.
const Json& sequence_member(const Json& object, const char* key, std::string_view what);
/// Error(kUnsupported) that names the component type and lists what we have.
[[noreturn]] void refuse_component(std::string_view what, std::string_view type,
                                   std::string_view known);

}  // namespace espalier::text
