// Batch normalisation over the channels of images as a plain struct of tensors, alone and with what
// follows it in a residual network.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace espalier {

/// Which statistics normalise.
enum class NormMode : std::uint8_t {
  kRunning,  // the stored ones (evaluation)
  kBatch,    // the batch's own; the stored ones move towards them (training)
};

/// All tensors are float32 [channels] whatever the activations' dtype, but the counter (int64
/// scalar). Names follow torch.
struct BatchNorm {
  at::Tensor weight, bias;
  at::Tensor running_mean, running_var;
  at::Tensor num_batches_tracked;
  double eps = 1e-5;
  double momentum = 0.1;

  template <class V>
  void visit(V&& slot) {
    slot("weight", weight);
    slot("bias", bias);
    slot("running_mean", running_mean);
    slot("running_var", running_var);
    slot("num_batches_tracked", num_batches_tracked);
  }

  bool defined() const { return weight.defined(); }
};

/// (x - mean) / sqrt(var + eps) * weight + bias per channel.
///
/// `x` [n, c, h, w] float32 or bfloat16 (statistics are float32), any memory format; a new tensor
/// of x's dtype and format, differentiable in x, weight and bias. In kBatch mode the running
/// statistics are updated in place, running = (1 - momentum) running + momentum batch with the
/// unbiased variance (as torch), and the counter goes up by one; copies of `norm` share them.
at::Tensor batch_norm(const at::Tensor& x, const BatchNorm& norm, NormMode mode);

/// relu(batch_norm(x) + residual); `residual` may be undefined. In kBatch mode one fused operation
/// (kernels/batch_norm); every network goes through this function.
at::Tensor batch_norm_relu(const at::Tensor& x, const BatchNorm& norm, NormMode mode,
                           const at::Tensor& residual = {});

}  // namespace espalier
