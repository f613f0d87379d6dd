// Byte-pair encoding of one pre-tokenised word: symbols are merged by lowest rank, leftmost first.
// Works on spellings: byte-level vocabularies see byte letters, SentencePiece ones plain characters
// and <0xXX> tokens.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/text/vocabulary_internal.h"

namespace espalier::text {

struct BpeMerge {
  TokenId left = 0;
  TokenId right = 0;
  TokenId result = 0;
};

struct BpeSettings {
  std::optional<std::string> unk_token;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;
};

class Bpe {
 public:
  /// `merges` in rank order; a pair that comes twice has its last rank, as in the `tokenizers`
  /// package.
  Bpe(const Vocabulary& vocabulary, std::vector<BpeMerge> merges, BpeSettings settings);

  /// Appends the ids of `word` (valid UTF-8). O(n^2) for short words, O(n log n) for long ones.
  void encode(std::string_view word, std::vector<TokenId>& out) const;

  const std::vector<BpeMerge>& merges() const { return merges_; }
  const BpeSettings& settings() const { return settings_; }
  /// True when no merge joins something before a "▁" with it, so that a text may be cut in front of
  /// every "▁" that follows another character without changing any id.
  bool splits_at_metaspace() const { return splits_at_metaspace_; }

 private:
  struct Rule {
    std::uint64_t pair = ~0ull;
    std::uint32_t rank = 0;
    TokenId result = 0;
  };
  struct Symbol {
    TokenId id;
    std::int32_t previous;
    std::int32_t next;
  };
  const Rule* find(TokenId left, TokenId right) const;
  void add_rules();
  bool find_metaspace_boundary() const;
  void to_symbols(std::string_view word, std::vector<TokenId>& ids) const;
  void merge_short(std::vector<TokenId>& ids, std::size_t first) const;
  void merge_long(std::vector<TokenId>& ids, std::size_t first) const;

  const Vocabulary* vocabulary_;
  std::vector<BpeMerge> merges_;
  BpeSettings settings_;
  TokenId unk_id_ = -1;
  std::array<TokenId, 128> ascii_ids_;
  std::array<TokenId, 256> byte_ids_;  // of "<0xXX>", -1 when absent
  std::vector<Rule> rules_;            // open addressing by pair
  bool splits_at_metaspace_ = false;
};

}  // namespace espalier::text
