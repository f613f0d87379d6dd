// Layer scores of the pruning literature (spec 2.2). Those of the forward pass come from ONE sweep
// (spec 4.1): weights are read once, and all leave-one-out streams, hidden-state scores and Grams
// are collected on the way. Taylor and GradNorm: gradient_scores.h; the greedy search: sleb.h.
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
#include "espalier/similarity/layer_choice.h"

namespace espalier::layer_pruning {

/// The metrics: reverse random mag_l1 mag_l2 bi angular cos_block ppl ppl+ cka_adj taylor taylor+
/// gradnorm sleb sglp.
///
/// reverse: L-1-l. random: rank in a permutation drawn from `seed`. mag_l1, mag_l2: sum of |w| or
/// w^2 over every weight of the block, norms included, biases not. bi: 1 - mean per-token cosine of
/// the layer's input and output. angular: one value per start j of a run of `remove` layers, mean
/// arccos(cos)/pi at the last token; cos_block: the same with 1 - mean cosine over all tokens. ppl:
/// perplexity without the layer. cka_adj: 1 - CKA(h_l, h_{l+1}), so that the layer whose output is
/// most like its input goes first; unbiased, rows RMS-normalised, first positions dropped. taylor,
/// gradnorm: gradient_scores.h. ppl+, taylor+: the numbers of ppl and taylor; layers 0-3 and the
/// last two never go. sleb: place in the greedy order of sleb.h. sglp: the numbers of gradnorm;
/// layers are segmented by the matrix of cka_adj, and the largest of each segment stay (arXiv
/// 2410.14720). Hidden states are raw residual streams, before the final norm.
const std::vector<std::string>& metric_names();

/// Throws Error(kUsage) with the list of metrics when `metric` is none of them.
void check_metric(std::string_view metric, std::string_view subject);

/// The scores of reverse and random, which look at nothing but the number of layers; nothing for
/// other metrics.
std::optional<std::vector<double>> blind_scores(std::string_view metric, std::int64_t layers,
                                                std::uint64_t seed);

/// Whether the metric looks at calibration text (reverse, random and the magnitudes do not).
bool needs_calibration(std::string_view metric);

/// angular and cos_block: one value per start of a run, good for one run length only.
bool scores_runs(std::string_view metric);

/// The metric whose numbers these are: "taylor" for "taylor+", else the metric itself.
std::string base_metric(std::string_view metric);

/// Layers that `metric` never removes: 0-3 and the last two for taylor+ and ppl+, the first and the
/// last for sleb, 0 and 1 for sglp, none for others.
std::vector<std::int64_t> protected_layers(std::string_view metric, std::int64_t layers);

struct ScoreOptions {
  std::vector<std::string> metrics{"bi", "angular", "ppl", "cka_adj"};
  std::int64_t remove = 0;           // n, for angular and cos_block (1 to L-1), sleb (1 to L-2)
  std::int64_t cka_skip_first = 1;   // positions dropped before CKA (massive activations)
  std::uint64_t seed = 42;           // random
  std::int64_t gradient_batch = 10;  // sequences per batch of taylor and gradnorm
  /// taylor: sum over batches of |w g| instead of |sum over batches of w g|, whose memory grows
  /// with the number of batches.
  bool taylor_per_batch = false;
  /// Bytes that streams and kept hidden states may take at once, beside weights, one chunk of
  /// activations and the gradients of a block; samples are scored in groups that fit, which reads
  /// the weights once per group. 0: as much as it takes, one group.
  std::int64_t memory_bytes = 0;
};

/// What sleb's search found: layers in the order of their removal and the perplexity after each.
struct GreedyOrder {
  std::vector<std::int64_t> removed;
  std::vector<double> perplexity;
  std::int64_t block_forwards = 0;  // counted
  std::int64_t plain_forwards = 0;  // of running every candidate from the start
};

struct LayerScores {
  std::int64_t layers = 0;
  std::map<std::string, std::vector<double>>
      metrics;                      // L numbers each; runs: one per start j, NaN past L - n
  at::Tensor cka;                   // [L, L] over h_1..h_L; undefined without cka_adj and sglp
  SegmentRule segments;             // of sglp's selection, see segment_plan
  double dense_perplexity = 0;      // of the calibration tokens; 0 without ppl, taylor, sleb
  std::int64_t block_forwards = 0;  // of the sweep, counted per stream: L(L+1)/2 for ppl
  GreedyOrder greedy;               // of sleb; empty when it was not asked for
};

/// ids [samples, seq_len]; undefined when no metric needs calibration. Works on streamed models:
/// each layer is read once per group of samples, twice more for taylor and gradnorm, once per round
/// for sleb. Memory: (L+1) samples seq_len d of the compute dtype with ppl, 2 without, n+1 for
/// cos_block, L for taylor and gradnorm (and the gradients of one block), and one upper triangle
/// per layer for cka_adj; see ScoreOptions::memory_bytes. A layer whose features are constant is
/// degenerate: its CKA counts 0, with a warning. Throws Error(kInput) naming the layer when a score
/// is NaN or Inf; Interrupted after a stop request (nothing is saved).
LayerScores score_layers(const Decoder& model, const at::Tensor& ids, const ScoreOptions& options,
                         Reporter& reporter, const StopToken& stop = never_stop());

/// Candidate by candidate, as peers do: the oracle of `ppl` and the bench's rival. L (L-1)
/// block-forwards.
std::vector<double> leave_one_out_naive(const Decoder& model, const at::Tensor& ids,
                                        std::int64_t* block_forwards = nullptr);

/// The layers that `metric` removes, sorted: the n smallest scores (ties: lower index) of those
/// that may go, or the best contiguous run for angular and cos_block. Error(kUsage) when fewer than
/// n may go; Error(kInput) when the scores were made for other run lengths or fewer greedy rounds.
std::vector<std::int64_t> select_layers(const LayerScores& scores, const std::string& metric,
                                        std::int64_t remove);

/// What sglp segments and keeps when `remove` layers go. Throws Error(kInput) without scores of
/// sglp or without a matrix, and what plan_segments throws.
SegmentPlan segment_plan(const LayerScores& scores, std::int64_t remove);

/// All layers, least important first (block_order.csv), protected ones last; for angular and
/// cos_block the best run, then by distance from it. Throws what select_layers throws.
std::vector<std::int64_t> block_order(const LayerScores& scores, const std::string& metric);

/// Which metric `auto` means: no recovery planned -> angular, or sleb when `thorough`; recovery,
/// ratio <= .30 and hidden >= 2048 -> reverse; else bi.
std::string auto_metric(bool recovery, double ratio, std::int64_t hidden_size,
                        bool thorough = false);

}  // namespace espalier::layer_pruning
