// Byte letters: tables both ways.
#include "espalier/text/byte_level_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr int kLetterLimit = 0x100 + 68;

struct Tables {
  std::array<std::string, 256> letters;
  std::array<int, kLetterLimit> bytes;

  Tables() {
    bytes.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const int code = printable ? byte : next++;
      utf8_append(letters[static_cast<std::size_t>(byte)], static_cast<char32_t>(code));
      bytes[static_cast<std::size_t>(code)] = byte;
    }
  }
};

const Tables& tables() {
  static const Tables instance;
  return instance;
}

}  // namespace

const std::array<std::string, 256>& byte_letters() { return tables().letters; }

std::string to_byte_letters(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) out += tables().letters[static_cast<unsigned char>(c)];
  return out;
}

bool append_from_byte_letters(std::string& out, std::string_view letters) {
  const std::size_t start = out.size();
  for (std::size_t pos = 0; pos < letters.size();
       pos += utf8_length(static_cast<unsigned char>(letters[pos]))) {
    const char32_t code = utf8_decode(letters, pos);
    const int byte = code < kLetterLimit ? tables().bytes[code] : -1;
    if (byte < 0) {
      out.resize(start);
      return false;
    }
    out.push_back(static_cast<char>(byte));
  }
  return true;
}

}  // namespace espalier::text
