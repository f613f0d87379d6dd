// Base64 (RFC 4648, section 4).
#include <algorithm>
#include <cstdint>

#include "espalier/base/error.h"
#include "espalier/text/base64_internal.h"

namespace espalier::text {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string base64_encode(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t have = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k)
      group = (group << 8) | (k < have ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k)
      out += k <= have ? kAlphabet[(group >> (18 - 6 * k)) & 63] : '=';
  }
  return out;
}

std::string base64_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size() / 4 * 3);
  while (!text.empty() && text.size() % 4 == 0 && text.back() == '=') {
    text.remove_suffix(1);
    if (text.size() % 4 == 3 && text.back() == '=') text.remove_suffix(1);
    break;
  }
  std::uint32_t group = 0;
  int bits = 0;
  for (const char c : text) {
    const std::size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos)
      throw Error(ErrorKind::kInput, "base64", "a character outside the alphabet");
    group = (group << 6) | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out += static_cast<char>((group >> bits) & 0xFF);
    }
  }
  if (bits >= 6) throw Error(ErrorKind::kInput, "base64", "the text is cut off");
  return out;
}

}  // namespace espalier::text
