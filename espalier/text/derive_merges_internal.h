// BPE merges for vocabularies that store only pieces and their scores (SentencePiece files).
#pragma once

#include <functional>
#include <vector>

#include "espalier/text/bpe_internal.h"

namespace espalier::text {

/// In which order merges that SentencePiece leaves implicit are ranked. transformers ranks
/// differently by file format, and where one piece can be built in several ways ids may depend on
/// it.
enum class MergeOrder : std::uint8_t {
  kById,           // piece id ascending, then shorter left part: tokenizer.model of the Llama kind
  kByScore,        // score descending, then longer left part: GGUF
  kByScoreStrict,  // score descending, piece id, then left and right text: any other
                   // tokenizer.model; normal pieces only
};

/// Every way to cut a piece into two pieces is a merge. `scores` by id; `is_normal(id)` is asked
/// for kByScoreStrict. Time O(sum of squared piece lengths). Throws Error(kUnsupported) on pieces
/// longer than 1024 bytes.
std::vector<BpeMerge> derive_merges(const Vocabulary& vocabulary, const std::vector<double>& scores,
                                    MergeOrder order,
                                    const std::function<bool(TokenId)>& is_normal);

}  // namespace espalier::text
