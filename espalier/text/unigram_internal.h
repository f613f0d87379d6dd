// Unigram model: the segmentation with the highest sum of piece scores (Viterbi over a byte trie).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "espalier/text/byte_trie_internal.h"
#include "espalier/text/vocabulary_internal.h"

namespace espalier::text {

class Unigram {
 public:
  /// `scores[id]` for every id of the vocabulary. Throws Error(kInput) when unk_id is out of range.
  Unigram(const Vocabulary& vocabulary, std::vector<double> scores, std::optional<TokenId> unk_id,
          bool byte_fallback);

  /// Appends the ids of `text` (valid UTF-8), runs of unknown characters as one unknown token or as
  /// byte tokens. O(n * longest piece). Throws Error(kInput) on an unknown character without an
  /// unknown token.
  void encode(std::string_view text, std::vector<TokenId>& out) const;

  const std::vector<double>& scores() const { return scores_; }
  std::optional<TokenId> unk_id() const { return unk_id_; }
  bool byte_fallback() const { return byte_fallback_; }

 private:
  void append_unknown(std::string_view part, std::vector<TokenId>& out) const;

  const Vocabulary* vocabulary_;
  std::vector<double> scores_;
  std::optional<TokenId> unk_id_;
  bool byte_fallback_;
  double unk_score_ = 0;
  ByteTrie trie_;
};

}  // namespace espalier::text
