// The first images of a set, cut into equal batches and normalised for a network: what measurements
// of a CNN read. No augmentation and no shuffling: the same call gives the same numbers.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "espalier/models/cnn/cnn.h"

namespace espalier {

struct ImageSample {
  at::Tensor pixels;  // uint8 [n, c, h, w]
  at::Tensor labels;  // int64 [n]
  std::int64_t batches = 10;
  std::int64_t batch_size = 256;
  at::ScalarType type = at::kFloat;  // of the computation: float32 or bfloat16

  /// Images of one batch as `net` wants them: (pixel / 255 - mean) / std of its config, on its
  /// device, channels last there where its weights are. [batch_size, c, h, w]
  at::Tensor images(const Cnn& net, std::int64_t batch) const;
  /// Their classes, on the net's device. [batch_size]
  at::Tensor targets(const Cnn& net, std::int64_t batch) const;
};

/// Throws Error(kInput), all problems at once, when `net` cannot take these images: another number
/// of channels, more classes than outputs, a single class; Error(kUsage) when there are fewer
/// images than batches x batch_size.
void check_image_sample(const Cnn& net, const ImageSample& images);

}  // namespace espalier
