// See batch_norm.h.
#include "espalier/nn/batch_norm.h"

#include <ATen/ops/batch_norm.h>

#include "espalier/kernels/batch_norm/batch_norm.h"

namespace espalier {
namespace {

at::Tensor by_running(const at::Tensor& x, const BatchNorm& norm) {
  return at::batch_norm(x, norm.weight, norm.bias, norm.running_mean, norm.running_var,
                        /*training=*/false, norm.momentum, norm.eps, /*cudnn_enabled=*/true);
}

at::Tensor by_batch(const at::Tensor& x, const BatchNorm& norm, const at::Tensor& residual,
                    NormActivation activation) {
  const BatchNormTensors tensors{
      norm.weight,   norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked,
      norm.momentum, norm.eps};
  return batch_norm_train(x, tensors, residual, activation);
}

}  // namespace

at::Tensor batch_norm(const at::Tensor& x, const BatchNorm& norm, NormMode mode) {
  return mode == NormMode::kBatch ? by_batch(x, norm, {}, NormActivation::kNone)
                                  : by_running(x, norm);
}

at::Tensor batch_norm_relu(const at::Tensor& x, const BatchNorm& norm, NormMode mode,
                           const at::Tensor& residual) {
  if (mode == NormMode::kBatch) return by_batch(x, norm, residual, NormActivation::kRelu);
  // In place where the tensor is new: the backward of a norm needs its input, not its output.
  at::Tensor y = by_running(x, norm);
  if (residual.defined()) y.add_(residual);
  return y.relu_();
}

}  // namespace espalier
