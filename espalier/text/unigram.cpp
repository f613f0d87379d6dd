// Unigram: forward pass with the best predecessor per byte position, then back-tracking.
// Follows the arithmetic of the `tokenizers` package (double scores, unknown penalty 10, strict
// improvement wins).
#include <algorithm>
#include <limits>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/unigram_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr double kUnknownPenalty = 10.0;

}  // namespace

Unigram::Unigram(const Vocabulary& vocabulary, std::vector<double> scores,
                 std::optional<TokenId> unk_id, bool byte_fallback)
    : vocabulary_(&vocabulary),
      scores_(std::move(scores)),
      unk_id_(unk_id),
      byte_fallback_(byte_fallback) {
  if (scores_.empty()) throw Error(ErrorKind::kInput, "Unigram model", "the vocabulary is empty");
  if (unk_id_ && (*unk_id_ < 0 || static_cast<std::size_t>(*unk_id_) >= scores_.size())) {
    throw Error(ErrorKind::kInput, "Unigram model",
                format("unk_id is {}, but there are {} pieces", *unk_id_, scores_.size()));
  }
  unk_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
  for (std::size_t id = 0; id < scores_.size(); ++id) {
    const auto token = vocabulary.token(static_cast<TokenId>(id));
    if (!token.empty()) trie_.insert(token, vocabulary.find(token));
  }
}

void Unigram::append_unknown(std::string_view part, std::vector<TokenId>& out) const {
  if (byte_fallback_) {
    std::vector<TokenId> bytes;
    for (const char c : part)
      bytes.push_back(
          vocabulary_->find(format("<0x{:02X}>", static_cast<int>(static_cast<unsigned char>(c)))));
    if (std::find(bytes.begin(), bytes.end(), -1) == bytes.end()) {
      out.insert(out.end(), bytes.begin(), bytes.end());
      return;
    }
  }
  out.push_back(*unk_id_);
}

void Unigram::encode(std::string_view text, std::vector<TokenId>& out) const {
  struct Node {
    double score = 0;
    std::uint32_t start = std::numeric_limits<std::uint32_t>::max();
    TokenId id = 0;
  };
  constexpr auto kUnset = std::numeric_limits<std::uint32_t>::max();
  if (text.size() >= kUnset)
    throw Error(ErrorKind::kUnsupported, "text",
                "a single piece of 4 GiB or more cannot be tokenised");
  std::vector<Node> best(text.size() + 1);
  std::size_t length = 0;
  for (std::size_t start = 0; start < text.size(); start += length) {
    length = utf8_length(static_cast<unsigned char>(text[start]));
    const double so_far = best[start].score;
    bool has_single = false;
    const auto offer = [&](std::size_t end, double score, TokenId id) {
      Node& node = best[end];
      if (node.start == kUnset || score > node.score)
        node = {score, static_cast<std::uint32_t>(start), id};
    };
    trie_.for_each_prefix(text.substr(start), [&](std::size_t size, TokenId id) {
      offer(start + size, scores_[static_cast<std::size_t>(id)] + so_far, id);
      has_single |= size == length;
    });
    if (!has_single) {
      if (!unk_id_)
        throw Error(ErrorKind::kInput, "Unigram model",
                    "an unknown character was met and the model has no unknown token");
      offer(start + length, unk_score_ + so_far, *unk_id_);
    }
  }
  const std::size_t first = out.size();
  std::vector<TokenId> part;
  for (std::size_t end = text.size(); end > 0;) {
    // Runs of unknown pieces are one piece; its ids are collected backwards like everything else
    // here.
    std::size_t start = best[end].start;
    if (unk_id_ && best[end].id == *unk_id_) {
      while (start > 0 && best[start].id == *unk_id_) start = best[start].start;
      const auto run = text.substr(start, end - start);
      part.clear();
      if (const TokenId known = vocabulary_->find(run); known >= 0) {
        part.push_back(known);
      } else {
        append_unknown(run, part);
      }
      out.insert(out.end(), part.rbegin(), part.rend());
    } else {
      out.push_back(best[end].id);
    }
    end = start;
  }
  std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
}

}  // namespace espalier::text
