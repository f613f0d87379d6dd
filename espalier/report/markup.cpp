// Escaping and number formatting for reports and tables.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/report/markup_internal.h"

namespace espalier::report_internal {
namespace {

constexpr char32_t kReplacement = 0xfffd;

bool allowed_in_xml(char32_t c) {
  if (c < 0x20) return c == '\t' || c == '\n' || c == '\r';
  return c != 0x7f && !(c >= 0x80 && c < 0xa0) && c != 0xfffe && c != 0xffff;
}

bool is_gap(std::string_view text) {
  return text.empty() || text == "-" || text == "–" || text == "—" || text == "n/a";
}

bool in_ranges(char32_t c, std::initializer_list<std::pair<char32_t, char32_t>> ranges) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [c](const auto& r) { return c >= r.first && c <= r.second; });
}

bool is_zero_width(char32_t c) {
  return in_ranges(c, {{0x300, 0x36f},
                       {0x483, 0x489},
                       {0x591, 0x5bd},
                       {0x610, 0x61a},
                       {0x64b, 0x65f},
                       {0x1ab0, 0x1aff},
                       {0x1dc0, 0x1dff},
                       {0x200b, 0x200f},
                       {0x2060, 0x2064},
                       {0x20d0, 0x20ff},
                       {0xfe00, 0xfe0f},
                       {0xfe20, 0xfe2f},
                       {0xfeff, 0xfeff},
                       {0xe0100, 0xe01ef}});
}

bool is_wide(char32_t c) {
  return in_ranges(c, {{0x1100, 0x115f},
                       {0x2e80, 0x303e},
                       {0x3041, 0x33ff},
                       {0x3400, 0x4dbf},
                       {0x4e00, 0x9fff},
                       {0xa000, 0xa4cf},
                       {0xac00, 0xd7a3},
                       {0xf900, 0xfaff},
                       {0xfe30, 0xfe6f},
                       {0xff00, 0xff60},
                       {0xffe0, 0xffe6},
                       {0x1f300, 0x1f64f},
                       {0x1f680, 0x1f6ff},
                       {0x1f900, 0x1f9ff},
                       {0x20000, 0x3fffd}});
}

}  // namespace

char32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at++);
  if (lead < 0x80) return lead;
  const int extra = lead >= 0xf0 && lead < 0xf5   ? 3
                    : lead >= 0xe0 && lead < 0xf0 ? 2
                    : lead >= 0xc2 && lead < 0xe0 ? 1
                                                  : 0;
  if (extra == 0 || at + static_cast<std::size_t>(extra) > text.size()) return kReplacement;
  char32_t code = lead & (0x3f >> extra);
  for (int i = 0; i < extra; ++i) {
    if ((byte(at + static_cast<std::size_t>(i)) & 0xc0) != 0x80) return kReplacement;
    code = code << 6 | (byte(at + static_cast<std::size_t>(i)) & 0x3f);
  }
  constexpr char32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[extra] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
    return kReplacement;
  at += static_cast<std::size_t>(extra);
  return code;
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) return put(0xc0 | c >> 6), put(0x80 | (c & 0x3f));
  if (c < 0x10000) return put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
  put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 0x3f)), put(0x80 | (c >> 6 & 0x3f)),
      put(0x80 | (c & 0x3f));
}

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        append_utf8(out, allowed_in_xml(c) ? c : kReplacement);
    }
  }
  return out;
}

std::string json_for_html(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  for (const char c : json) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

std::string number_text(double value) {
  if (std::isnan(value)) return "–";
  if (std::isinf(value)) return value > 0 ? "∞" : "-∞";
  if (value == std::floor(value) && std::abs(value) >= 1000 && std::abs(value) < 1e15) {
    return format_count(static_cast<std::int64_t>(value));
  }
  std::string text = format("{:.6g}", value);
  const std::size_t exponent = text.find('e');
  if (exponent != std::string::npos) {  // 1.2e-05 -> 1.2e-5, 1e+20 -> 1e20
    std::string digits = text.substr(exponent + 1);
    const bool negative = digits.starts_with('-');
    digits.erase(0, digits.find_first_not_of("+-0"));
    text = text.substr(0, exponent + 1) + (negative ? "-" : "") + digits;
  }
  return text;
}

std::string coordinate(double value) {
  std::string text = format("{:.2f}", value);
  while (text.ends_with('0')) text.pop_back();
  if (text.ends_with('.')) text.pop_back();
  return text == "-0" ? "0" : text;
}

bool is_number_text(std::string_view text) {
  bool digit = false;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (c >= '0' && c <= '9') {
      digit = true;
    } else if ((c == 'e' || c == 'E') && digit) {
      continue;
    } else if (!(c == '.' || c == ',' || c == '+' || c == '-' || c == ' ' || c == '%' ||
                 c == U'±' || c == U'−' || c == U'\u202f' || c == U'∞')) {
      return text == "inf" || text == "-inf" || text == "nan";
    }
  }
  return digit || text == "∞" || text == "-∞";
}

bool is_numeric_column(const std::vector<std::vector<std::string>>& rows, std::size_t column) {
  bool any = false;
  for (const auto& row : rows) {
    if (column >= row.size() || is_gap(row[column])) continue;
    if (!is_number_text(row[column])) return false;
    any = true;
  }
  return any;
}

int display_width(std::string_view text) {
  int width = 0;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    width += is_zero_width(c) ? 0 : is_wide(c) ? 2 : 1;
  }
  return width;
}

std::string shorten(std::string_view text, std::size_t count) {
  std::string out;
  std::size_t used = 0;
  for (std::size_t at = 0; at < text.size(); ++used) {
    const std::size_t before = at;
    const char32_t c = next_code_point(text, at);
    if (used + 1 == count && at < text.size()) return out + "…";
    if (used == count) return std::string(text.substr(0, before));
    append_utf8(out, c);
  }
  return out;
}

}  // namespace espalier::report_internal
