// Layer scores of the pruning literature from ONE sweep over the model (spec 2.2, 4.1): weights are read once, and all
// leave-one-out streams, hidden-state scores and Grams are collected on the way. Lower score = removed first.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

/// Metrics of this release: reverse random mag_l1 mag_l2 bi angular ppl cka_adj.
const std::vector<std::string>& metric_names();

struct ScoreOptions {
  std::vector<std::string> metrics{"bi", "angular", "ppl", "cka_adj"};
  std::int64_t remove = 0;          // n, for angular
  std::int64_t cka_skip_first = 1;  // positions dropped before CKA (massive activations)
  std::uint64_t seed = 42;          // random
};

struct LayerScores {
  std::int64_t layers = 0;
  std::map<std::string, std::vector<double>> metrics;  // L numbers each; angular: one per start j, NaN past L - n
  at::Tensor cka;                                       // [L, L] over h_1..h_L, undefined unless cka_adj was asked for
  double dense_perplexity = 0;                          // of the calibration tokens; 0 without ppl
  std::int64_t block_forwards = 0;                      // counted per stream batch element: L(L+1)/2 for ppl
};

/// ids [samples, seq_len]. Works on streamed models. Throws Error(kInput) naming the layer when a score is NaN or Inf.
LayerScores score_layers(const Decoder& model, const at::Tensor& ids, const ScoreOptions& options, Reporter& reporter,
                         const StopToken& stop = never_stop());

/// Candidate by candidate, as peers do: the oracle of `ppl` and the bench's rival.
std::vector<double> leave_one_out_naive(const Decoder& model, const at::Tensor& ids, std::int64_t* block_forwards = nullptr);

/// The layers that `metric` removes, sorted: n smallest scores (ties: lower index), or the best contiguous run for angular.
std::vector<std::int64_t> select_layers(const LayerScores& scores, const std::string& metric, std::int64_t remove);

/// Which metric `auto` means: no recovery planned -> angular; recovery, ratio <= .30 and hidden >= 2048 -> reverse; else bi.
std::string auto_metric(bool recovery, double ratio, std::int64_t hidden_size);

/// scores.json (spec 3.6) as text and back.
struct Calibration {
  std::string file, sha256;
  std::int64_t samples = 0, seq_len = 0;
  std::uint64_t seed = 0;
};
std::string scores_to_json(const LayerScores& scores, const std::string& model, const Calibration& calibration);
LayerScores scores_from_json(std::string_view text, std::string_view source);

}  // namespace espalier::layer_pruning
