// Tokens by id and ids by token. Ids may have gaps, whose token is "".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/text/tokenizer.h"

namespace espalier::text {

class Vocabulary {
 public:
  /// Adds or replaces. An id beyond `max_gap` of what is there is refused with Error(kInput): a
  /// file of n bytes must not make us allocate much more than n bytes.
  void set(TokenId id, std::string token);
  void reserve(std::size_t count);

  TokenId find(
      std::string_view token) const;  // -1 when absent; among equal spellings the one set last
  std::string_view token(TokenId id) const;  // "" for gaps and out of range
  std::size_t size() const { return tokens_.size(); }
  /// Number of different spellings; what the `tokenizers` package calls the vocabulary size.
  std::size_t distinct() const { return distinct_; }
  bool contains_id(TokenId id) const {
    return id >= 0 && static_cast<std::size_t>(id) < present_.size() &&
           present_[static_cast<std::size_t>(id)];
  }

 private:
  void grow(std::size_t slots);
  std::size_t slot_of(std::string_view token) const;

  std::vector<std::string> tokens_;
  std::vector<bool> present_;
  std::vector<TokenId> slots_;  // open addressing, -1 = free; size is a power of two
  std::size_t distinct_ = 0;
};

}  // namespace espalier::text
