// UTF-8 stepping and repair, and character classes over utf8proc's tables.
#include <utf8proc.h>

#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

utf8proc_category_t category(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

}  // namespace

void utf8_append(std::string& out, char32_t code) {
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (code >> 6)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else if (code < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | (code >> 12)));
    out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | (code >> 18)));
    out.push_back(static_cast<char>(0x80 | ((code >> 12) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

Utf8Start classify_utf8(std::string_view bytes, std::size_t pos, std::size_t& length) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = at(pos);
  length = 1;
  if (lead < 0x80) return Utf8Start::kCharacter;
  if (lead < 0xC2 || lead > 0xF4) return Utf8Start::kInvalid;
  const std::size_t wanted = utf8_length(lead);
  // The second byte's range excludes overlong forms, surrogates and codes above U+10FFFF.
  unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  while (length < wanted) {
    if (pos + length == bytes.size()) return Utf8Start::kIncomplete;
    const unsigned char next = at(pos + length);
    if (next < low || next > high) return Utf8Start::kInvalid;
    ++length;
    low = 0x80;
    high = 0xBF;
  }
  return Utf8Start::kCharacter;
}

bool is_valid_utf8(std::string_view bytes) {
  std::size_t length = 0;
  for (std::size_t pos = 0; pos < bytes.size(); pos += length) {
    if (classify_utf8(bytes, pos, length) != Utf8Start::kCharacter) return false;
  }
  return true;
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  std::size_t length = 0;
  for (std::size_t pos = 0; pos < bytes.size(); pos += length) {
    if (classify_utf8(bytes, pos, length) == Utf8Start::kCharacter) {
      out.append(bytes.substr(pos, length));
    } else {
      out.append("\xEF\xBF\xBD");
    }
  }
  return out;
}

bool is_whitespace(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_numeric(char32_t code) {
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t code) {
  if (code < 0x80)
    return (code >= 33 && code <= 47) || (code >= 58 && code <= 64) || (code >= 91 && code <= 96) ||
           (code >= 123 && code <= 126);
  const auto c = category(code);
  return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

bool is_combining_mark(char32_t code) {
  const auto c = category(code);
  return c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME;
}

bool is_word(char32_t code) {
  if (code < 0x80) {
    return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') ||
           (code >= 'A' && code <= 'Z') || code == '_';
  }
  const auto c = category(code);
  return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_ND) || c == UTF8PROC_CATEGORY_NL ||
         c == UTF8PROC_CATEGORY_PC || code == 0x200C || code == 0x200D ||
         (code >= 0x24B6 && code <= 0x24E9);
}

bool is_cjk(char32_t code) {
  return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) ||
         (code >= 0x20000 && code <= 0x2A6DF) || (code >= 0x2A700 && code <= 0x2B73F) ||
         (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
         (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

bool is_control(char32_t code) {
  if (code == '\t' || code == '\n' || code == '\r') return false;
  const auto c = category(code);
  return c >= UTF8PROC_CATEGORY_CC;  // Cc, Cf, Cs, Co
}

void append_lowercase(std::string& out, char32_t code) {
  if (code ==
      0x130) {  // the one character whose full lower-case mapping is longer than the simple one
    out.append("i\xCC\x87");
    return;
  }
  utf8_append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
}

void append_titlecase(std::string& out, char32_t code) {
  utf8_append(out, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code))));
}

}  // namespace espalier::text
