// See batch_norm.h.
#include "espalier/nn/batch_norm.h"

#include <ATen/ops/batch_norm.h>

namespace espalier {

at::Tensor batch_norm(const at::Tensor& x, const BatchNorm& norm, NormMode mode) {
  const bool training = mode == NormMode::kBatch;
  // Counted first: the running statistics below belong to this batch too.
  if (training && norm.num_batches_tracked.defined()) norm.num_batches_tracked.add_(1);
  return at::batch_norm(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, training,
                        norm.momentum, norm.eps, /*cudnn_enabled=*/true);
}

at::Tensor batch_norm_relu(const at::Tensor& x, const BatchNorm& norm, NormMode mode,
                           const at::Tensor& residual) {
  // In place where the tensor is new: the backward of a norm needs its input, not its output.
  at::Tensor y = batch_norm(x, norm, mode);
  if (residual.defined()) y.add_(residual);
  return y.relu_();
}

}  // namespace espalier
