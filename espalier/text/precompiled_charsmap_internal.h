// The normaliser table of SentencePiece models ("Precompiled" in tokenizer.json): a double-array
// trie from characters to replacement strings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier::text {

class PrecompiledCharsmap {
 public:
  /// `blob`: 4 bytes trie size, the trie's 32-bit units, then NUL-terminated replacements. Throws
  /// Error(kInput).
  explicit PrecompiledCharsmap(std::string_view blob);

  /// Grapheme by grapheme where the table has the (short) grapheme, else character by character;
  /// this is what the `tokenizers` package does, and it differs from SentencePiece on some
  /// combining sequences.
  std::string apply(std::string_view text) const;

 private:
  std::optional<std::string_view> find(std::string_view key) const;

  std::vector<std::uint32_t> trie_;
  std::string replacements_;
};

}  // namespace espalier::text
