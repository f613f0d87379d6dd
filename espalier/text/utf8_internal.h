// UTF-8 stepping, encoding and repair. All text inside this module is valid UTF-8: `to_valid_utf8`
// runs once at the door. Also the Unicode character classes of Rust's `char`, which the
// `tokenizers` package is defined by.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace espalier::text {

/// Length in bytes of the character that starts with `lead`, in valid UTF-8.
inline std::size_t utf8_length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/// The character at `pos` of valid UTF-8.
inline char32_t utf8_decode(std::string_view text, std::size_t pos) {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[pos + i]));
  };
  const char32_t lead = byte(0);
  if (lead < 0x80) return lead;
  if (lead < 0xE0) return ((lead & 0x1F) << 6) | (byte(1) & 0x3F);
  if (lead < 0xF0) return ((lead & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F);
  return ((lead & 0x07) << 18) | ((byte(1) & 0x3F) << 12) | ((byte(2) & 0x3F) << 6) |
         (byte(3) & 0x3F);
}

/// Start of the character that ends at `pos` (> 0).
inline std::size_t utf8_previous(std::string_view text, std::size_t pos) {
  do {
    --pos;
  } while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

void utf8_append(std::string& out, char32_t code);

/// How a sequence of bytes starts: a whole character, a prefix of one that more bytes may complete,
/// or neither.
enum class Utf8Start : std::uint8_t { kCharacter, kIncomplete, kInvalid };
/// `length` becomes the character's length, or the length of the maximal invalid part (at least 1),
/// which is what one U+FFFD stands for in Python, Rust and the WHATWG decoder alike.
Utf8Start classify_utf8(std::string_view bytes, std::size_t pos, std::size_t& length);

bool is_valid_utf8(std::string_view bytes);
/// Each maximal invalid part becomes one U+FFFD.
std::string to_valid_utf8(std::string_view bytes);

bool is_whitespace(char32_t code);      // White_Space
bool is_numeric(char32_t code);         // Nd, Nl, No
bool is_punctuation(char32_t code);     // P*, or ASCII punctuation
bool is_combining_mark(char32_t code);  // M*
bool is_word(char32_t code);            // \w of UTS 18: Alphabetic, M*, Nd, Pc, Join_Control
bool is_cjk(char32_t code);             // the ideograph blocks of BERT's normalizer
bool is_control(char32_t code);         // C* but Cn, except tab, LF, CR
/// Full lower-case mapping of one character, without context.
void append_lowercase(std::string& out, char32_t code);
/// Simple title-case mapping of one character.
void append_titlecase(std::string& out, char32_t code);

}  // namespace espalier::text
