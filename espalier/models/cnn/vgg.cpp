// See vgg.h. Sources: chengyangfu/pytorch-vgg-cifar10 (whose dropouts stand before the first two
// dense layers) and torchvision's vgg.py (behind them).
#include "espalier/models/cnn/vgg.h"

#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/max_pool2d.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/models/cnn/arch_internal.h"
#include "espalier/models/cnn/empty_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr double kDropout = 0.5;
constexpr std::int64_t kSmallest = 32;     // five pools leave one pixel
constexpr std::int64_t kImagenetGrid = 7;  // torchvision pools to this whatever comes

}  // namespace

at::Tensor Vgg::forward(const at::Tensor& images, const CnnPass& pass) const {
  if (images.size(2) < kSmallest || images.size(3) < kSmallest) {
    throw Error(ErrorKind::kInput, "images",
                format("have shape {}, but a VGG needs at least {} x {} pixels",
                       shape_text(images.sizes()), kSmallest, kSmallest));
  }
  at::Tensor x = images;
  std::int64_t index = 0;
  for (const auto& stage : stages) {
    for (const VggLayer& layer : stage) {
      x = layer.conv(x);
      pass.show(index++, x);
      x = batch_norm_relu(x, layer.norm, pass.mode);
    }
    x = at::max_pool2d(x, {2, 2}, {2, 2});
  }
  if (imagenet) {
    x = at::adaptive_avg_pool2d(x, {kImagenetGrid, kImagenetGrid}).flatten(1);
    x = masked_dropout(classifier[0](x).relu(), kDropout, pass, 0);
    x = masked_dropout(classifier[1](x).relu(), kDropout, pass, 1);
  } else {
    x = classifier[0](masked_dropout(global_average(x), kDropout, pass, 0)).relu();
    x = classifier[1](masked_dropout(x, kDropout, pass, 1)).relu();
  }
  return classifier[2](x);
}

Vgg empty_vgg(const CnnConfig& config) {
  const CnnArch arch = arch_of(config);
  Vgg net;
  std::int64_t width = config.in_channels;
  for (std::size_t s = 0; s < config.stages.size(); ++s) {
    net.stages.emplace_back();
    for (std::size_t c = 0; c < config.stages[s].size(); ++c) {
      net.stages.back().push_back(
          {empty_conv(width, arch.widths[s], 3, /*stride=*/1, /*bias=*/true),
           empty_norm(arch.widths[s])});
      width = arch.widths[s];
    }
  }
  net.imagenet = arch.imagenet;
  const std::int64_t inner = arch.imagenet ? 4096 : 512;
  const std::int64_t pixels = arch.imagenet ? kImagenetGrid * kImagenetGrid : 1;
  net.classifier = {empty_dense(width * pixels, inner), empty_dense(inner, inner),
                    empty_dense(inner, config.num_classes)};
  return net;
}

}  // namespace espalier
