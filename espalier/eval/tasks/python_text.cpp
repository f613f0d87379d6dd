// Stepping over UTF-8 with the whitespace set of CPython's unicodedata.
#include "espalier/eval/tasks/python_text.h"

#include <cmath>

#include "espalier/base/format.h"
#include "espalier/text/utf8_internal.h"

namespace espalier {
namespace {

/// The character at `pos` and its length; a broken byte stands for itself, shifted out of Unicode.
char32_t step(std::string_view text, std::size_t pos, std::size_t& length) {
  if (text::classify_utf8(text, pos, length) == text::Utf8Start::kCharacter)
    return text::utf8_decode(text, pos);
  length = 1;
  return 0x110000 + static_cast<unsigned char>(text[pos]);
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

}  // namespace

std::string_view python_rstrip(std::string_view text) {
  std::size_t end = text.size(), length = 0;
  while (end > 0) {
    const std::size_t begin = text::utf8_previous(text, end);
    if (!is_space(step(text, begin, length)) || begin + length != end) break;
    end = begin;
  }
  return text.substr(0, end);
}

std::string_view python_lstrip(std::string_view text) {
  std::size_t begin = 0, length = 0;
  while (begin < text.size() && is_space(step(text, begin, length))) begin += length;
  return text.substr(begin);
}

std::string_view python_strip(std::string_view text) { return python_rstrip(python_lstrip(text)); }

std::string python_capitalize(std::string_view text) {
  std::string out;
  std::size_t length = 0;
  for (std::size_t pos = 0; pos < text.size(); pos += length) {
    const char32_t c = step(text, pos, length);
    if (c > 0x10FFFF) {
      out += text[pos];
    } else if (pos == 0) {
      text::append_titlecase(out, c);
    } else {
      text::append_lowercase(out, c);
    }
  }
  return out;
}

std::int64_t python_length(std::string_view text) {
  std::int64_t count = 0;
  std::size_t length = 0;
  for (std::size_t pos = 0; pos < text.size(); pos += length) {
    step(text, pos, length);
    ++count;
  }
  return count;
}

std::int64_t python_word_count(std::string_view text) {
  std::int64_t runs = 0;
  std::size_t length = 0;
  bool in_run = false;
  for (std::size_t pos = 0; pos < text.size(); pos += length) {
    const bool space = is_space(step(text, pos, length));
    runs += space && !in_run;
    in_run = space;
  }
  return runs + 1;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  std::size_t pos = 0;
  for (std::size_t hit = text.find(from); hit != std::string_view::npos;
       hit = text.find(from, pos)) {
    out.append(text.substr(pos, hit - pos)).append(to);
    pos = hit + from.size();
  }
  return out.append(text.substr(pos));
}

std::string python_float(double value) {
  if (std::isnan(value)) return "nan";
  std::string digits = format("{}", value);
  if (std::isfinite(value) && digits.find_first_of(".e") == std::string::npos) digits += ".0";
  return digits;
}

}  // namespace espalier
