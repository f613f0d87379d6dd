// derive_merges: all two-piece cuts of every piece, ranked.
#include <algorithm>
#include <tuple>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/derive_merges_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr std::size_t kMaxPiece = 1024;

struct Cut {
  BpeMerge merge;
  double score = 0;
  std::int32_t left_length = 0;  // in characters
  std::int32_t right_length = 0;
};

}  // namespace

std::vector<BpeMerge> derive_merges(const Vocabulary& vocabulary, const std::vector<double>& scores,
                                    MergeOrder order,
                                    const std::function<bool(TokenId)>& is_normal) {
  const bool strict = order == MergeOrder::kByScoreStrict;
  std::vector<Cut> cuts;
  for (TokenId id = 0; static_cast<std::size_t>(id) < vocabulary.size(); ++id) {
    const std::string_view piece = vocabulary.token(id);
    if (vocabulary.find(piece) != id || (strict && !is_normal(id))) continue;
    if (piece.size() > kMaxPiece) {
      throw Error(
          ErrorKind::kUnsupported, "vocabulary",
          format("piece {} is {} bytes long; we handle up to {}", id, piece.size(), kMaxPiece));
    }
    std::int32_t characters = 0;
    for (std::size_t i = 0; i < piece.size();
         i += utf8_length(static_cast<unsigned char>(piece[i])))
      ++characters;
    const std::size_t first = cuts.size();
    std::int32_t left_length = 0;
    for (std::size_t i = 0; i < piece.size();) {
      i += utf8_length(static_cast<unsigned char>(piece[i]));
      ++left_length;
      if (i >= piece.size()) break;
      const TokenId left = vocabulary.find(piece.substr(0, i));
      const TokenId right = left < 0 ? -1 : vocabulary.find(piece.substr(i));
      if (right < 0 || (strict && (!is_normal(left) || !is_normal(right)))) continue;
      cuts.push_back({{left, right, id},
                      scores[static_cast<std::size_t>(id)],
                      left_length,
                      characters - left_length});
    }
    std::sort(cuts.begin() + static_cast<std::ptrdiff_t>(first), cuts.end(),
              [](const Cut& a, const Cut& b) {
                return std::pair(a.merge.left, a.merge.right) <
                       std::pair(b.merge.left, b.merge.right);
              });
  }
  std::stable_sort(cuts.begin(), cuts.end(), [&](const Cut& a, const Cut& b) {
    switch (order) {
      case MergeOrder::kById:
        return std::tuple(a.merge.result, a.left_length, a.right_length) <
               std::tuple(b.merge.result, b.left_length, b.right_length);
      case MergeOrder::kByScore:
        return std::tuple(a.score, a.left_length, a.right_length) >
               std::tuple(b.score, b.left_length, b.right_length);
      default:
        return std::tuple(-a.score, a.merge.result, vocabulary.token(a.merge.left),
                          vocabulary.token(a.merge.right)) <
               std::tuple(-b.score, b.merge.result, vocabulary.token(b.merge.left),
                          vocabulary.token(b.merge.right));
    }
  });
  std::vector<BpeMerge> merges;
  merges.reserve(cuts.size());
  for (const Cut& cut : cuts) merges.push_back(cut.merge);
  return merges;
}

}  // namespace espalier::text
