// Ids of words already met in this text. English repeats itself: nine of ten words are found here.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "espalier/text/tokenizer.h"

namespace espalier::text {

/// A fixed-size open hash table that stops taking words when it is three quarters full. Not
/// thread-safe; one per call.
class WordCache {
 public:
  /// Sized for a text of `text_bytes`; short texts get a small table.
  explicit WordCache(std::size_t text_bytes);

  /// The ids of `word`, or nothing. Valid until the next insert.
  std::span<const TokenId> find(std::string_view word) const;
  /// Words that are long, or have no ids, are not kept.
  void insert(std::string_view word, std::span<const TokenId> ids);

 private:
  struct Entry {
    std::uint64_t hash = 0;
    std::uint32_t key = 0;     // into keys_
    std::uint32_t ids = 0;     // into ids_
    std::uint16_t length = 0;  // of the word; 0 = free
    std::uint16_t count = 0;
  };
  std::size_t slot_of(std::string_view word, std::uint64_t hash) const;

  std::vector<Entry> entries_;
  std::vector<char> keys_;
  std::vector<TokenId> ids_;
  std::size_t used_ = 0;
};

}  // namespace espalier::text
