// Batch normalisation of a training step, with the residual sum and the ReLU that follow it in
// convolutional networks, forward and backward each in one go.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace espalier {

/// What follows the norm.
enum class NormActivation : std::uint8_t { kNone, kRelu };

/// float32 [channels] each, but the counter (int64 scalar). The last three are updated in place and
/// may be undefined.
struct BatchNormTensors {
  at::Tensor weight, bias;
  at::Tensor running_mean = {}, running_var = {}, counter = {};
  double momentum = 0.1, eps = 1e-5;
};

/// y = act((x - mean) / sqrt(var + eps) * weight + bias + residual), mean and (biased) variance per
/// channel over the batch.
///
/// `x` [n, c, h, w] float32 or bfloat16, `residual` of the same shape and dtype or undefined -> a
/// new tensor like x, statistics and arithmetic in float32. running = (1 - momentum) running +
/// momentum batch, with the unbiased variance; the counter goes up by one. Differentiable once in
/// x, residual, weight and bias; a ReLU passes gradients where y > 0. Deterministic, on the CPU for
/// any number of threads. NaN stays NaN.
///
/// Throws Error(kInput) when a channel has but one value, Error(kInternal) when shapes differ.
/// Source: Ioffe and Szegedy 2015, arXiv 1502.03167.
///
/// The kernels are for channels-last memory; elsewhere ATen's operations are composed. Fusing pays
/// because all of it is bandwidth: with residual and ReLU a step moves x twice, the residual, y,
/// then the gradient, x and y twice each and two gradients out, 12 passes in place of 20, in 3 + 3
/// launches in place of about 9. Keeps x and, with residual and ReLU, y.
at::Tensor batch_norm_train(const at::Tensor& x, const BatchNormTensors& norm,
                            const at::Tensor& residual, NormActivation activation);

/// The definition of y, in float64, differentiable; float64 result, running statistics left alone.
at::Tensor batch_norm_train_reference(const at::Tensor& x, const BatchNormTensors& norm,
                                      const at::Tensor& residual, NormActivation activation);

}  // namespace espalier
