// The printable letter that byte-level vocabularies write for each byte: bytes that are printable
// in Latin-1 stand for themselves, the other 68 get U+0100, U+0101, ... in byte order.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace espalier::text {

/// The letters as UTF-8, by byte.
const std::array<std::string, 256>& byte_letters();

/// Each byte of `bytes` as its letter.
std::string to_byte_letters(std::string_view bytes);

/// The bytes spelled by `letters` (valid UTF-8) are appended to `out`; false, and nothing appended,
/// when some character is not a byte letter.
bool append_from_byte_letters(std::string& out, std::string_view letters);

}  // namespace espalier::text
