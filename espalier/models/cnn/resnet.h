// Residual networks as plain structs: CIFAR's (He et al. 2016, section 4.2, option A shortcuts) and
// torchvision's (projection shortcuts, stride in the 3x3 convolution). Names follow the published
// checkpoints of either.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/models/cnn/config.h"
#include "espalier/models/cnn/head.h"
#include "espalier/nn/batch_norm.h"
#include "espalier/nn/conv2d.h"

namespace espalier {

/// A projection on the shortcut: `downsample.0`, `downsample.1`.
struct Projection {
  Conv2d conv;
  BatchNorm norm;

  template <class V>
  void visit(V&& slot) {
    slot("0", conv);
    slot("1", norm);
  }
};

/// Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1) block. Shortcut: a projection where `downsample`
/// is defined; else x[:, :, ::2, ::2] with `padded_channels` zero channels on both sides where that
/// is above 0; else x.
struct ResnetBlock {
  Conv2d conv1;
  BatchNorm bn1;
  Conv2d conv2;
  BatchNorm bn2;
  Conv2d conv3;  // bottleneck only
  BatchNorm bn3;
  Projection downsample;
  std::int64_t padded_channels = 0;

  template <class V>
  void visit(V&& slot) {
    slot("conv1", conv1);
    slot("bn1", bn1);
    slot("conv2", conv2);
    slot("bn2", bn2);
    slot("conv3", conv3);
    slot("bn3", bn3);
    slot("downsample", downsample);
  }

  at::Tensor forward(const at::Tensor& x, NormMode mode) const;
};

struct Resnet {
  Conv2d conv1;
  BatchNorm bn1;
  bool max_pool = false;  // 3x3, stride 2, behind the stem (torchvision)
  std::vector<std::vector<ResnetBlock>> stages;
  const char* head_name = "linear";  // "fc" in torchvision
  Dense head;

  /// `layer1.0` is the first block of the first stage.
  template <class V>
  void visit(V&& slot) {
    slot("conv1", conv1);
    slot("bn1", bn1);
    for (std::size_t s = 0; s < stages.size(); ++s) {
      const std::string stage = "layer" + std::to_string(s + 1) + ".";
      for (std::size_t b = 0; b < stages[s].size(); ++b)
        slot((stage + std::to_string(b)).c_str(), stages[s][b]);
    }
    slot(head_name, head);
  }

  /// images [n, c, h, w] -> logits [n, classes].
  at::Tensor forward(const at::Tensor& images, const CnnPass& pass) const;
};

/// The network of a config with float32 tensors of the right shapes and no values.
Resnet empty_resnet(const CnnConfig& config);

}  // namespace espalier
