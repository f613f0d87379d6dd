// String operations of Python on marked text: what is kept of the text keeps its marks.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "espalier/text/marked_text_internal.h"

namespace espalier::text::jinja {

enum class Case : std::uint8_t { kUpper, kLower, kTitle, kCapital };

std::size_t count_characters(std::string_view text);
/// str.strip: of white space (`blank`) or of any of the characters of `chars`.
MarkedText strip_text(const MarkedText& text, std::string_view chars, bool blank, bool left,
                      bool right);
/// str.split: at runs of white space when `separator` is empty, at most `limit` times unless it is
/// negative.
std::vector<MarkedText> split_text(const MarkedText& text, std::string_view separator,
                                   std::int64_t limit, bool from_right);
std::vector<MarkedText> split_lines(const MarkedText& text);
/// str.replace; `limit` negative: all.
MarkedText replace_text(const MarkedText& text, std::string_view from, const MarkedText& to,
                        std::int64_t limit);
MarkedText change_case(const MarkedText& text, Case how);

}  // namespace espalier::text::jinja
