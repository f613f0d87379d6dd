// The greedy search of SLEB: remove, one after the other, the layer whose absence costs least given
// those already gone. The same list as by running every candidate, with what candidates share
// computed once (spec 4.2).
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

struct SlebOptions {
  std::int64_t remove = 1;
  /// Bytes for streams kept from round to round: with fewer of them, rounds start from a lower
  /// layer and the list stays the same. 0: the size of the weights, at least 1 GiB.
  std::int64_t snapshot_bytes = 0;
  /// Bytes of the streams of one round; samples are run in groups that fit. 0: one group.
  std::int64_t stream_bytes = 0;
};

struct SlebResult {
  std::vector<std::int64_t> removed;  // in the order of removal
  std::vector<double> perplexity;     // of the calibration tokens after each removal
  double dense_perplexity = 0;
  /// Perplexities of the last round's candidates by layer, those of its choice included; NaN for
  /// layers that were gone before and for the two that never go.
  std::vector<double> last_round;
  std::int64_t block_forwards = 0;  // blocks run over all samples, counted
  std::int64_t plain_forwards =
      0;  // what running every candidate of every round from the start takes
};

/// Error(kUsage) unless 1 <= remove <= layers - 2: the first and the last layer always stay.
void check_sleb_rounds(std::int64_t layers, std::int64_t remove);

/// ids [samples, tokens >= 2]. Ties go to the lower layer.
///
/// In a round, each candidate's stream starts as a copy of the base stream where the candidate
/// would have run; after the choice of layer r, all streams that reached r without it are where the
/// next round needs them, so that round starts at r from a snapshot. At depth L with r in the
/// middle a round runs 3/8 L^2 blocks instead of L^2, the first one 1/2 L^2. Memory: L streams of
/// samples tokens d, and the snapshots. Streamed models read the remaining layers once per round
/// and group. Throws Error(kInput) naming the candidate whose loss is not finite while it would
/// have been chosen; Interrupted after a stop request. Source: Song et al. 2024, arXiv:2402.09025.
SlebResult sleb_greedy(const Decoder& model, const at::Tensor& ids, const SlebOptions& options,
                       Reporter& reporter, const StopToken& stop = never_stop());

/// The definition: every candidate of every round from the embedding on. The oracle of sleb_greedy
/// and the bench's rival.
SlebResult sleb_plain(const Decoder& model, const at::Tensor& ids, std::int64_t remove);

/// Places in the order as scores: removed layers 0, 1, ...; then the last round's other candidates
/// by their perplexity; the last and the first layer at the end.
std::vector<double> sleb_scores(const SlebResult& result, std::int64_t layers);

}  // namespace espalier::layer_pruning
