// BPE: symbols from characters, then merging by rank. Short words scan for the best pair, long ones
// keep a heap.
#include <algorithm>
#include <bit>
#include <limits>
#include <queue>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/bpe_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr std::size_t kShortWord = 24;  // symbols; above this the heap is faster
constexpr std::string_view kMetaspace = "\xE2\x96\x81";

std::uint64_t pair_key(TokenId left, TokenId right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) |
         static_cast<std::uint32_t>(right);
}

std::uint64_t mix(std::uint64_t key) {
  key ^= key >> 32;
  key *= 0x9E3779B97F4A7C15ull;
  return key ^ (key >> 29);
}

}  // namespace

Bpe::Bpe(const Vocabulary& vocabulary, std::vector<BpeMerge> merges, BpeSettings settings)
    : vocabulary_(&vocabulary), merges_(std::move(merges)), settings_(std::move(settings)) {
  if (merges_.size() > std::numeric_limits<std::uint32_t>::max() / 4) {
    throw Error(ErrorKind::kUnsupported, "merges",
                format("{} merges are more than we handle", merges_.size()));
  }
  if (settings_.unk_token) unk_id_ = vocabulary.find(*settings_.unk_token);
  for (std::size_t i = 0; i < ascii_ids_.size(); ++i) {
    const char letter = static_cast<char>(i);
    ascii_ids_[i] = vocabulary.find(std::string_view(&letter, 1));
  }
  for (int byte = 0; byte < 256; ++byte)
    byte_ids_[static_cast<std::size_t>(byte)] = vocabulary.find(format("<0x{:02X}>", byte));
  add_rules();
  splits_at_metaspace_ = find_metaspace_boundary();
}

void Bpe::add_rules() {
  rules_.assign(std::bit_ceil(merges_.size() * 2 + 16), Rule{});
  const std::size_t mask = rules_.size() - 1;
  for (std::size_t rank = 0; rank < merges_.size(); ++rank) {
    const BpeMerge& merge = merges_[rank];
    const std::uint64_t key = pair_key(merge.left, merge.right);
    std::size_t slot = mix(key) & mask;
    while (rules_[slot].pair != ~0ull && rules_[slot].pair != key) slot = (slot + 1) & mask;
    rules_[slot] = {key, static_cast<std::uint32_t>(rank), merge.result};
  }
}

bool Bpe::find_metaspace_boundary() const {
  if (settings_.ignore_merges || vocabulary_->find(kMetaspace) < 0) return false;
  return std::none_of(merges_.begin(), merges_.end(), [&](const BpeMerge& merge) {
    return vocabulary_->token(merge.right).starts_with(kMetaspace) &&
           !vocabulary_->token(merge.left).ends_with(kMetaspace);
  });
}

const Bpe::Rule* Bpe::find(TokenId left, TokenId right) const {
  const std::uint64_t key = pair_key(left, right);
  const std::size_t mask = rules_.size() - 1;
  for (std::size_t slot = mix(key) & mask;; slot = (slot + 1) & mask) {
    if (rules_[slot].pair == key) return &rules_[slot];
    if (rules_[slot].pair == ~0ull) return nullptr;
  }
}

void Bpe::to_symbols(std::string_view word, std::vector<TokenId>& ids) const {
  bool unknown_pending = false;
  std::size_t length = 0;
  for (std::size_t pos = 0; pos < word.size(); pos += length) {
    const auto lead = static_cast<unsigned char>(word[pos]);
    length = utf8_length(lead);
    const TokenId id = lead < 0x80 ? ascii_ids_[lead] : vocabulary_->find(word.substr(pos, length));
    if (id >= 0) {
      if (unknown_pending) ids.push_back(unk_id_);
      unknown_pending = false;
      ids.push_back(id);
      continue;
    }
    const auto bytes = word.substr(pos, length);
    const auto byte_id = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
    if (settings_.byte_fallback &&
        std::all_of(bytes.begin(), bytes.end(), [&](char c) { return byte_id(c) >= 0; })) {
      // As in the `tokenizers` package, a pending unknown comes after the bytes.
      for (const char c : bytes) ids.push_back(byte_id(c));
      continue;
    }
    if (!settings_.unk_token) continue;
    if (unk_id_ < 0) {
      throw Error(
          ErrorKind::kInput, "tokenizer",
          format("the unknown token \"{}\" is not in the vocabulary", *settings_.unk_token));
    }
    if (unknown_pending && !settings_.fuse_unk) ids.push_back(unk_id_);
    unknown_pending = true;
  }
  if (unknown_pending) ids.push_back(unk_id_);
}

void Bpe::merge_short(std::vector<TokenId>& ids, std::size_t first) const {
  constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
  std::array<std::uint32_t, kShortWord> ranks;
  std::array<TokenId, kShortWord> results;
  std::size_t count = ids.size() - first;
  TokenId* symbols = ids.data() + first;
  const auto look_up = [&](std::size_t i) {
    const Rule* rule = i + 1 < count ? find(symbols[i], symbols[i + 1]) : nullptr;
    ranks[i] = rule ? rule->rank : kNone;
    if (rule) results[i] = rule->result;
  };
  for (std::size_t i = 0; i < count; ++i) look_up(i);
  while (count > 1) {
    const std::size_t best = static_cast<std::size_t>(
        std::min_element(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(count)) -
        ranks.begin());
    if (ranks[best] == kNone) break;
    symbols[best] = results[best];
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      ranks[i] = ranks[i + 1];
      results[i] = results[i + 1];
    }
    --count;
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  ids.resize(first + count);
}

void Bpe::merge_long(std::vector<TokenId>& ids, std::size_t first) const {
  struct Candidate {
    std::uint32_t rank;
    std::int32_t position;
    TokenId result;
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto count = static_cast<std::int32_t>(ids.size() - first);
  std::vector<Symbol> symbols(static_cast<std::size_t>(count));
  std::vector<Candidate> initial;
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[static_cast<std::size_t>(i)] = {ids[first + static_cast<std::size_t>(i)], i - 1,
                                            i + 1 < count ? i + 1 : -1};
  }
  const auto symbol = [&](std::int32_t i) -> Symbol& {
    return symbols[static_cast<std::size_t>(i)];
  };
  for (std::int32_t i = 0; i + 1 < count; ++i) {
    if (const Rule* rule = find(symbol(i).id, symbol(i + 1).id))
      initial.push_back({rule->rank, i, rule->result});
  }
  std::priority_queue<Candidate> queue({}, std::move(initial));
  const auto push = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right < 0) return;
    if (const Rule* rule = find(symbol(left).id, symbol(right).id))
      queue.push({rule->rank, left, rule->result});
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbol(top.position);
    if (left.id < 0 || left.next < 0) continue;  // gone, or nothing to its right
    Symbol& right = symbol(left.next);
    const Rule* rule = find(left.id, right.id);
    if (rule == nullptr || rule->result != top.result)
      continue;  // the pair has changed since it was queued
    left.id = top.result;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbol(left.next).previous = top.position;
    push(left.previous, top.position);
    push(top.position, left.next);
  }
  ids.resize(first);
  for (std::int32_t i = 0; i >= 0 && count > 0; i = symbol(i).next) ids.push_back(symbol(i).id);
}

void Bpe::encode(std::string_view word, std::vector<TokenId>& out) const {
  if (settings_.ignore_merges) {
    if (const TokenId id = vocabulary_->find(word); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  if (word.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error(ErrorKind::kUnsupported, "text",
                "a single word of 2 GiB or more cannot be tokenised")
        .hint("split the text into lines");
  }
  const std::size_t first = out.size();
  to_symbols(word, out);
  const std::size_t count = out.size() - first;
  if (count < 2) return;
  count <= kShortWord ? merge_short(out, first) : merge_long(out, first);
}

}  // namespace espalier::text
