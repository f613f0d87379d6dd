// Layers with tensors of the right shape and no values yet: filled by an initialisation or from a
// file. Internal to models/cnn.
#pragma once

#include <cstdint>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "espalier/models/cnn/head.h"
#include "espalier/nn/batch_norm.h"
#include "espalier/nn/conv2d.h"

namespace espalier {

/// Square kernel, padded so that stride 1 keeps the size.
inline Conv2d empty_conv(std::int64_t in, std::int64_t out, std::int64_t kernel,
                         std::int64_t stride = 1, bool bias = false) {
  return {.weight = at::empty({out, in, kernel, kernel}, at::kFloat),
          .bias = bias ? at::empty({out}, at::kFloat) : at::Tensor(),
          .stride = stride,
          .padding = kernel / 2};
}

inline BatchNorm empty_norm(std::int64_t channels) {
  const auto tensor = [channels] { return at::empty({channels}, at::kFloat); };
  return {.weight = tensor(),
          .bias = tensor(),
          .running_mean = tensor(),
          .running_var = tensor(),
          .num_batches_tracked = at::zeros({}, at::kLong)};
}

inline Dense empty_dense(std::int64_t in, std::int64_t out) {
  return {.weight = at::empty({out, in}, at::kFloat), .bias = at::empty({out}, at::kFloat)};
}

}  // namespace espalier
