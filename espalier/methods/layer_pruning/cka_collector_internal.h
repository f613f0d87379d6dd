// CKA between all of h_0..h_L from one layer's states at a time: only centred Grams are kept.
// Internal to the sweep.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/similarity/similarity.h"

namespace espalier::layer_pruning {

class CkaCollector {
 public:
  /// Rows of a minibatch at most: its Gram is the square of this.
  static constexpr std::int64_t kRows = 1024;

  CkaCollector(std::int64_t states, std::int64_t tokens, std::int64_t skip_first)
      : states_(states),
        skip_first_(skip_first),
        usable_(tokens - skip_first),
        rows_per_sequence_(std::min(usable_, kRows)),
        hsic_(states, CkaEstimator::kUnbiased) {}

  /// Throws Error(kInput) when `samples` sequences of `tokens` leave fewer than 4 rows.
  static void check(std::int64_t samples, std::int64_t tokens, std::int64_t skip_first) {
    const std::int64_t usable = tokens - skip_first;
    if (usable >= 1 && samples * usable >= 4) return;
    throw Error(
        ErrorKind::kInput, "calibration",
        format("{} samples of {} tokens leave {} rows for CKA after dropping {} positions, at "
               "least 4 are needed",
               samples, tokens, samples * std::max<std::int64_t>(0, usable), skip_first))
        .hint("raise --samples or --seq-len");
  }

  /// Equal minibatches of whole sequences; a sequence longer than a minibatch is cut to its first
  /// rows.
  void begin(std::int64_t samples) {
    batches_.clear();
    const std::int64_t per_batch = std::max<std::int64_t>(1, kRows / usable_);
    const std::int64_t batches = (samples + per_batch - 1) / per_batch;
    for (std::int64_t b = 0; b < batches; ++b) {
      const std::int64_t first = samples * b / batches, end = samples * (b + 1) / batches;
      if ((end - first) * rows_per_sequence_ >= 4) batches_.push_back({first, end - first, {}});
    }
  }

  void add(std::int64_t state, const at::Tensor& h) {
    for (Batch& batch : batches_) {
      const at::Tensor part =
          h.narrow(0, batch.first, batch.count).narrow(1, skip_first_, rows_per_sequence_);
      at::Tensor x = part.reshape({-1, h.size(2)}).to(at::kDouble);
      const at::Tensor rms = x.square().mean(-1, true).sqrt();
      x = (x / at::where(rms.eq(0), at::ones_like(rms), rms)).to(at::kFloat);
      const at::Tensor row = HsicMatrix::centred_row(x, state, CkaEstimator::kUnbiased);
      if (!batch.grams.defined()) batch.grams = at::empty({states_, row.size(0)}, row.options());
      batch.grams[state].copy_(row);
    }
  }

  void end() {
    for (const Batch& batch : batches_)
      hsic_.add_rows(batch.grams, batch.count * rows_per_sequence_);
    batches_.clear();
  }

  /// [states, states]; NaN for degenerate states, which are listed.
  at::Tensor matrix(std::vector<std::int64_t>& degenerate) const {
    degenerate = hsic_.degenerate_layers();
    return hsic_.cka();
  }

 private:
  struct Batch {
    std::int64_t first = 0, count = 0;
    at::Tensor grams;
  };
  std::int64_t states_ = 0, skip_first_ = 0, usable_ = 0, rows_per_sequence_ = 0;
  HsicMatrix hsic_;
  std::vector<Batch> batches_;
};

}  // namespace espalier::layer_pruning
