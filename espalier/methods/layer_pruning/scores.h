// Layer scores of the pruning literature from ONE sweep over the model (spec 2.2, 4.1): weights are
// read once, and all leave-one-out streams, hidden-state scores and Grams are collected on the way.
// Lower score = removed first.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

/// Metrics of this release: reverse random mag_l1 mag_l2 bi angular ppl cka_adj.
///
/// reverse: L-1-l. random: rank in a permutation drawn from `seed`. mag_l1, mag_l2: sum of |w| or
/// w^2 over every weight of the block, norms included, biases not. bi: 1 - mean per-token cosine of
/// the layer's input and output. angular: one value per start j of a run of `remove` layers, mean
/// arccos(cos)/pi at the last token. ppl: perplexity without the layer. cka_adj: 1 - CKA(h_l,
/// h_{l+1}), so that the layer whose output is most like its input goes first; unbiased, rows
/// RMS-normalised, first positions dropped. Hidden states are raw residual streams, before the
/// final norm.
const std::vector<std::string>& metric_names();

/// Throws Error(kUsage) with the list of metrics when `metric` is none of them.
void check_metric(std::string_view metric, std::string_view subject);

/// The scores of reverse and random, which look at nothing but the number of layers; nothing for
/// other metrics.
std::optional<std::vector<double>> blind_scores(std::string_view metric, std::int64_t layers,
                                                std::uint64_t seed);

/// Whether the metric looks at calibration text (reverse, random and the magnitudes do not).
bool needs_calibration(std::string_view metric);

struct ScoreOptions {
  std::vector<std::string> metrics{"bi", "angular", "ppl", "cka_adj"};
  std::int64_t remove = 0;          // n, for angular (1 to L-1)
  std::int64_t cka_skip_first = 1;  // positions dropped before CKA (massive activations)
  std::uint64_t seed = 42;          // random
};

struct LayerScores {
  std::int64_t layers = 0;
  std::map<std::string, std::vector<double>>
      metrics;                      // L numbers each; angular: one per start j, NaN past L - n
  at::Tensor cka;                   // [L, L] over h_1..h_L, undefined unless cka_adj was asked for
  double dense_perplexity = 0;      // of the calibration tokens; 0 without ppl
  std::int64_t block_forwards = 0;  // counted per stream batch element: L(L+1)/2 for ppl
};

/// ids [samples, seq_len]; undefined when no metric needs calibration. Works on streamed models:
/// each layer is read once. Memory: (L+1) samples seq_len d of the compute dtype with ppl, 2
/// without, and one upper triangle per layer for cka_adj. A layer whose features are constant is
/// degenerate: its CKA counts 0, with a warning. Throws Error(kInput) naming the layer when a score
/// is NaN or Inf; Interrupted after a stop request (nothing is saved).
LayerScores score_layers(const Decoder& model, const at::Tensor& ids, const ScoreOptions& options,
                         Reporter& reporter, const StopToken& stop = never_stop());

/// Candidate by candidate, as peers do: the oracle of `ppl` and the bench's rival. L (L-1)
/// block-forwards.
std::vector<double> leave_one_out_naive(const Decoder& model, const at::Tensor& ids,
                                        std::int64_t* block_forwards = nullptr);

/// The layers that `metric` removes, sorted: n smallest scores (ties: lower index), or the best
/// contiguous run for angular.
std::vector<std::int64_t> select_layers(const LayerScores& scores, const std::string& metric,
                                        std::int64_t remove);

/// All layers, least important first (block_order.csv); for angular the best run, then by distance
/// from it. Throws what select_layers throws.
std::vector<std::int64_t> block_order(const LayerScores& scores, const std::string& metric);

/// Which metric `auto` means: no recovery planned -> angular; recovery, ratio <= .30 and hidden >=
/// 2048 -> reverse; else bi.
std::string auto_metric(bool recovery, double ratio, std::int64_t hidden_size);

/// scores.json (spec 3.6) as text and back.
struct Calibration {
  std::string file, sha256;
  std::int64_t samples = 0, seq_len = 0;
  std::uint64_t seed = 0;
};
std::string scores_to_json(const LayerScores& scores, const std::string& model,
                           const Calibration& calibration);
LayerScores scores_from_json(std::string_view text, std::string_view source);

}  // namespace espalier::layer_pruning
