// VGG with batch norm as plain structs, in the layout of the CIFAR checkpoints (512-512-classes
// behind one mean pixel) and in torchvision's (4096-4096-classes behind 7 x 7). Both have biases on
// their convolutions. Names: features.{n}, classifier.{n}.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/models/cnn/config.h"
#include "espalier/models/cnn/head.h"
#include "espalier/nn/batch_norm.h"
#include "espalier/nn/conv2d.h"

namespace espalier {

struct VggLayer {
  Conv2d conv;
  BatchNorm norm;
};

struct Vgg {
  std::vector<std::vector<VggLayer>> stages;  // a 2 x 2 max pool behind each
  std::array<Dense, 3> classifier;
  bool imagenet = false;  // torchvision's classifier: names 0, 3, 6 and 7 x 7 inputs; else 1, 4, 6

  /// A layer takes three places of `features` (convolution, norm, ReLU), a pool one.
  template <class V>
  void visit(V&& slot) {
    std::int64_t place = 0;
    for (auto& stage : stages) {
      for (VggLayer& layer : stage) {
        slot(("features." + std::to_string(place)).c_str(), layer.conv);
        slot(("features." + std::to_string(place + 1)).c_str(), layer.norm);
        place += 3;
      }
      ++place;
    }
    slot(imagenet ? "classifier.0" : "classifier.1", classifier[0]);
    slot(imagenet ? "classifier.3" : "classifier.4", classifier[1]);
    slot("classifier.6", classifier[2]);
  }

  /// images [n, c, h, w], at least 32 x 32 -> logits [n, classes]. Shows every convolution's output
  /// before its norm.
  at::Tensor forward(const at::Tensor& images, const CnnPass& pass) const;
};

/// The network of a config with float32 tensors of the right shapes and no values.
Vgg empty_vgg(const CnnConfig& config);

}  // namespace espalier
