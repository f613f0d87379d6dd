// The definition of batch_norm_train, in float64.
#include <array>

#include <ATen/ATen.h>

#include "espalier/kernels/batch_norm/batch_norm.h"

namespace espalier {

at::Tensor batch_norm_train_reference(const at::Tensor& x, const BatchNormTensors& norm,
                                      const at::Tensor& residual, NormActivation activation) {
  const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
  const auto per_channel = [&](const at::Tensor& t) { return wide(t).view({1, -1, 1, 1}); };
  const std::array<std::int64_t, 3> pixels{0, 2, 3};
  const at::Tensor centred = wide(x) - wide(x).mean(pixels, /*keepdim=*/true);
  const at::Tensor variance = centred.square().mean(pixels, /*keepdim=*/true);
  at::Tensor y =
      centred / (variance + norm.eps).sqrt() * per_channel(norm.weight) + per_channel(norm.bias);
  if (residual.defined()) y = y + wide(residual);
  return activation == NormActivation::kRelu ? y.relu() : y;
}

}  // namespace espalier
