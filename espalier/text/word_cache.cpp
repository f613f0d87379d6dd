// WordCache: linear probing, keys and ids in two arenas.
#include <algorithm>
#include <bit>
#include <functional>

#include "espalier/text/word_cache_internal.h"

namespace espalier::text {
namespace {

constexpr std::size_t kMaxWord = 64;
constexpr std::size_t kMaxSlots =
    1u << 16;  // 1.5 MiB of entries: still in a core's second-level cache or near it

}  // namespace

WordCache::WordCache(std::size_t text_bytes)
    : entries_(std::bit_ceil(std::clamp<std::size_t>(text_bytes / 8, 16, kMaxSlots))) {}

std::size_t WordCache::slot_of(std::string_view word, std::uint64_t hash) const {
  const std::size_t mask = entries_.size() - 1;
  std::size_t slot = hash & mask;
  while (entries_[slot].length != 0 &&
         !(entries_[slot].hash == hash && entries_[slot].length == word.size() &&
           std::equal(word.begin(), word.end(), keys_.begin() + entries_[slot].key))) {
    slot = (slot + 1) & mask;
  }
  return slot;
}

std::span<const TokenId> WordCache::find(std::string_view word) const {
  if (word.size() > kMaxWord) return {};
  const Entry& entry = entries_[slot_of(word, std::hash<std::string_view>{}(word))];
  return entry.length == 0 ? std::span<const TokenId>()
                           : std::span<const TokenId>(ids_).subspan(entry.ids, entry.count);
}

void WordCache::insert(std::string_view word, std::span<const TokenId> ids) {
  if (word.empty() || word.size() > kMaxWord || ids.empty() ||
      used_ >= entries_.size() - entries_.size() / 4)
    return;
  const std::uint64_t hash = std::hash<std::string_view>{}(word);
  Entry& entry = entries_[slot_of(word, hash)];
  if (entry.length != 0) return;
  entry = {hash, static_cast<std::uint32_t>(keys_.size()), static_cast<std::uint32_t>(ids_.size()),
           static_cast<std::uint16_t>(word.size()), static_cast<std::uint16_t>(ids.size())};
  keys_.insert(keys_.end(), word.begin(), word.end());
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  ++used_;
}

}  // namespace espalier::text
