// Text as Python sees it, where lm-eval's prompts and counts depend on that: what is whitespace,
// how `capitalize` and `len` work. Offsets are bytes of UTF-8; broken bytes count as one character
// each.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

/// str.strip() and its halves: the characters of str.isspace(), U+00A0 and U+3000 among them.
std::string_view python_strip(std::string_view text);
std::string_view python_lstrip(std::string_view text);
std::string_view python_rstrip(std::string_view text);
/// str.capitalize(): the first character in title case, every other one in lower case.
std::string python_capitalize(std::string_view text);
/// len(str): Unicode code points.
std::int64_t python_length(std::string_view text);
/// len(re.split(r"\s+", text)): runs of whitespace and one more.
std::int64_t python_word_count(std::string_view text);
/// str.replace: every occurrence from left to right, none inside a replacement.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);
/// repr(float): the shortest digits that read back the same, always with a point or an exponent.
std::string python_float(double value);

}  // namespace espalier
