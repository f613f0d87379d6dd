// Vocabulary: a vector of spellings and an open-addressing index of ids.
#include <bit>
#include <functional>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/vocabulary_internal.h"

namespace espalier::text {
namespace {

constexpr std::size_t kMaxGapFactor = 8;
constexpr std::size_t kFreeGap = 1u << 18;

}  // namespace

void Vocabulary::reserve(std::size_t count) {
  tokens_.reserve(count);
  present_.reserve(count);
  grow(std::bit_ceil(count * 2 + 16));
}

std::size_t Vocabulary::slot_of(std::string_view token) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = std::hash<std::string_view>{}(token)&mask;
  while (slots_[slot] >= 0 && tokens_[static_cast<std::size_t>(slots_[slot])] != token)
    slot = (slot + 1) & mask;
  return slot;
}

void Vocabulary::grow(std::size_t slots) {
  if (slots <= slots_.size()) return;
  std::vector<TokenId> old(slots, -1);
  old.swap(slots_);
  for (const TokenId id : old) {
    if (id >= 0) slots_[slot_of(tokens_[static_cast<std::size_t>(id)])] = id;
  }
}

void Vocabulary::set(TokenId id, std::string token) {
  if (id < 0 || static_cast<std::size_t>(id) > kFreeGap + kMaxGapFactor * distinct_) {
    throw Error(
        ErrorKind::kInput, "vocabulary",
        format("token id {} is out of proportion to the {} tokens read so far", id, distinct_));
  }
  const auto index = static_cast<std::size_t>(id);
  if (index >= tokens_.size()) {
    tokens_.resize(index + 1);
    present_.resize(index + 1, false);
  }
  if (present_[index]) {
    throw Error(ErrorKind::kInput, "vocabulary", format("token id {} is given twice", id));
  }
  grow(std::bit_ceil(distinct_ * 2 + 16));
  const std::size_t slot = slot_of(token);
  if (slots_[slot] < 0) ++distinct_;
  tokens_[index] = std::move(token);
  present_[index] = true;
  slots_[slot] = id;
}

TokenId Vocabulary::find(std::string_view token) const {
  return slots_.empty() ? -1 : slots_[slot_of(token)];
}

std::string_view Vocabulary::token(TokenId id) const {
  return id >= 0 && static_cast<std::size_t>(id) < tokens_.size()
             ? std::string_view(tokens_[static_cast<std::size_t>(id)])
             : std::string_view();
}

}  // namespace espalier::text
