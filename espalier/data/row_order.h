// Which rows make up the batch of a step: a pure function of (seed, epoch, step), so a resumed run,
// a run on other hardware and a test all see the same batches, and no sampler state has to be
// saved.
#pragma once

#include <cstdint>
#include <vector>

namespace espalier {

/// Row order of a training run. Each epoch visits every row once, in a new permutation; the last
/// batch of an epoch is smaller when `rows` is not a multiple of `batch_size`.
class RowOrder {
 public:
  /// Throws Error(kInput) unless rows and batch_size are positive.
  RowOrder(std::int64_t rows, std::int64_t batch_size, std::uint64_t seed);

  std::int64_t steps_per_epoch() const { return steps_per_epoch_; }
  std::int64_t epoch_of(std::int64_t step) const { return step / steps_per_epoch_; }
  /// Rows of `step` (counted from 0 over all epochs). O(1) within an epoch, O(rows) when the epoch
  /// changes.
  std::vector<std::int64_t> batch(std::int64_t step);

 private:
  std::int64_t rows_, batch_size_, steps_per_epoch_;
  std::uint64_t seed_;
  std::int64_t epoch_ = -1;  // of `order_`
  std::vector<std::int64_t> order_;
};

}  // namespace espalier
