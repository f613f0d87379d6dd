// CSS of the report page and its mark.
#pragma once

#include <string>

namespace espalier::report_internal {

std::string page_style();
/// A small inline SVG: a tree trained on three wires.
std::string brand_mark();

}  // namespace espalier::report_internal
