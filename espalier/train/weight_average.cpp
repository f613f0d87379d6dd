// See weight_average.h.
#include "espalier/train/weight_average.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"

namespace espalier {

WeightAverage::WeightAverage(std::vector<at::Tensor> tensors, double factor)
    : tensors_(std::move(tensors)), factor_(factor) {
  ESPALIER_ASSERT(factor > 0 && factor < 1);
  for (const at::Tensor& tensor : tensors_) average_.push_back(tensor.detach().clone());
}

void WeightAverage::update() {
  if (!exists()) return;
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> averages, tensors;
  for (std::size_t i = 0; i < average_.size(); ++i) {
    if (!average_[i].is_floating_point()) {
      average_[i].copy_(tensors_[i]);
      continue;
    }
    averages.push_back(average_[i]);
    tensors.push_back(tensors_[i].detach());
  }
  at::_foreach_lerp_(averages, tensors, 1 - factor_);
}

void WeightAverage::swap() {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < average_.size(); ++i) {
    const at::Tensor before = tensors_[i].detach().clone();
    tensors_[i].copy_(average_[i]);
    average_[i].copy_(before);
  }
}

}  // namespace espalier
