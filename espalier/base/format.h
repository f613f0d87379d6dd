// Text formatting for the whole tree: fmt as shipped with libtorch, behind one function so that
// only format.cpp pays for fmt's heavy header. Deliberately no I/O: the library never prints.
#pragma once

#include <string>

#include <fmt/base.h>

namespace espalier {

std::string vformat(fmt::string_view pattern, fmt::format_args args);

/// Formats like std::format: `format("{} of {}", i, n)`. The pattern is checked at compile time.
template <class... Args>
std::string format(fmt::format_string<Args...> pattern, Args&&... args) {
  return vformat(pattern, fmt::make_format_args(args...));
}

}  // namespace espalier
