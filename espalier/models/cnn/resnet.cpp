// See resnet.h.
#include "espalier/models/cnn/resnet.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/max_pool2d.h>

#include "espalier/models/cnn/arch_internal.h"
#include "espalier/models/cnn/empty_internal.h"

namespace espalier {
namespace {

constexpr std::int64_t kExpansion = 4;  // of a bottleneck's last convolution

ResnetBlock empty_block(const CnnArch& arch, std::int64_t in, std::int64_t out,
                        std::int64_t stride) {
  ResnetBlock block;
  if (arch.bottleneck) {
    const std::int64_t inner = out / kExpansion;
    block.conv1 = empty_conv(in, inner, 1);
    block.bn1 = empty_norm(inner);
    block.conv2 = empty_conv(inner, inner, 3, stride);
    block.bn2 = empty_norm(inner);
    block.conv3 = empty_conv(inner, out, 1);
    block.bn3 = empty_norm(out);
  } else {
    block.conv1 = empty_conv(in, out, 3, stride);
    block.bn1 = empty_norm(out);
    block.conv2 = empty_conv(out, out, 3);
    block.bn2 = empty_norm(out);
  }
  if (in == out && stride == 1) return block;
  if (arch.family == CnnFamily::kCifarResnet) {
    block.padded_channels = out / 4;
  } else {
    block.downsample.conv = empty_conv(in, out, 1, stride);
    block.downsample.norm = empty_norm(out);
  }
  return block;
}

}  // namespace

at::Tensor ResnetBlock::forward(const at::Tensor& x, NormMode mode) const {
  at::Tensor shortcut = x;
  if (downsample.conv.defined()) {
    shortcut = batch_norm(downsample.conv(x), downsample.norm, mode);
  } else if (padded_channels > 0) {
    const at::Tensor half = x.slice(2, 0, c10::nullopt, 2).slice(3, 0, c10::nullopt, 2);
    shortcut = at::constant_pad_nd(half, {0, 0, 0, 0, padded_channels, padded_channels}, 0);
  }
  at::Tensor y = batch_norm_relu(conv1(x), bn1, mode);
  if (!conv3.defined()) return batch_norm_relu(conv2(y), bn2, mode, shortcut);
  y = batch_norm_relu(conv2(y), bn2, mode);
  return batch_norm_relu(conv3(y), bn3, mode, shortcut);
}

at::Tensor Resnet::forward(const at::Tensor& images, const CnnPass& pass) const {
  at::Tensor x = conv1(images);
  std::int64_t index = 0;
  pass.show(index, x);
  x = batch_norm_relu(x, bn1, pass.mode);
  if (max_pool) x = at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1});
  for (const auto& stage : stages) {
    for (const ResnetBlock& block : stage) {
      x = block.forward(x, pass.mode);
      pass.show(++index, x);
    }
  }
  return head(global_average(x));
}

Resnet empty_resnet(const CnnConfig& config) {
  const CnnArch arch = arch_of(config);
  const bool cifar = arch.family == CnnFamily::kCifarResnet;
  Resnet net;
  std::int64_t width = cifar ? 16 : 64;
  net.conv1 = cifar ? empty_conv(config.in_channels, width, 3)
                    : empty_conv(config.in_channels, width, 7, /*stride=*/2);
  net.bn1 = empty_norm(width);
  net.max_pool = !cifar;
  for (std::size_t s = 0; s < config.stages.size(); ++s) {
    net.stages.emplace_back();
    for (std::size_t b = 0; b < config.stages[s].size(); ++b) {
      const std::int64_t stride = b == 0 && s > 0 ? 2 : 1;
      net.stages.back().push_back(empty_block(arch, width, arch.widths[s], stride));
      width = arch.widths[s];
    }
  }
  net.head_name = cifar ? "linear" : "fc";
  net.head = empty_dense(arch.widths.back(), config.num_classes);
  return net;
}

}  // namespace espalier
