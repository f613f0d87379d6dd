// An exponential moving average of what is trained, beside it.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

class WeightAverage {
 public:
  /// No average: everything below does nothing.
  WeightAverage() = default;
  /// Begins with the present values of `tensors` (handles; on one device), as copies.
  WeightAverage(std::vector<at::Tensor> tensors, double factor);

  bool exists() const { return !average_.empty(); }
  /// average = factor * average + (1 - factor) * tensor, for floating-point tensors in one pass;
  /// others (counters) are copied. Asks the host for nothing.
  /// Source: Polyak and Juditsky 1992; torch.optim.swa_utils.get_ema_multi_avg_fn.
  void update();
  /// Exchanges the values of the average and of the tensors.
  void swap();
  /// One per tensor, to be stored and overwritten by checkpoints.
  const std::vector<at::Tensor>& values() const { return average_; }

 private:
  std::vector<at::Tensor> tensors_, average_;
  double factor_ = 0;
};

}  // namespace espalier
