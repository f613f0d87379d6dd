// See nats_net.h. Source: NAS-Bench-201's cell_infers (D-X-Y/AutoDL-Projects).
#include "espalier/models/cnn/nats_net.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/zeros_like.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/models/cnn/arch_internal.h"
#include "espalier/models/cnn/empty_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr std::int64_t kCellsPerGroup = 5;
constexpr std::int64_t kStemWidth = 16;
constexpr std::int64_t kGrid = 4;  // halved twice, by a convolution and a mean beside each other

NatsConv empty_nats_conv(std::int64_t in, std::int64_t out, std::int64_t kernel,
                         std::int64_t stride = 1) {
  return {empty_conv(in, out, kernel, stride), empty_norm(out)};
}

NatsCellLayer empty_cell(const NatsCell& cell, std::int64_t width) {
  NatsCellLayer layer;
  layer.cell = cell;
  for (std::size_t e = 0; e < cell.edges.size(); ++e) {
    if (cell.edges[e] == NatsOp::kConv1x1) layer.edges[e] = empty_nats_conv(width, width, 1);
    if (cell.edges[e] == NatsOp::kConv3x3) layer.edges[e] = empty_nats_conv(width, width, 3);
  }
  return layer;
}

/// What an edge puts out; undefined for `none`, which adds nothing.
at::Tensor edge_output(NatsOp op, const NatsConv& conv, const at::Tensor& x, NormMode mode) {
  switch (op) {
    case NatsOp::kNone:
      return {};
    case NatsOp::kSkip:
      return x;
    case NatsOp::kAvgPool3x3:
      return at::avg_pool2d(x, {3, 3}, {1, 1}, {1, 1}, /*ceil_mode=*/false,
                            /*count_include_pad=*/false);
    case NatsOp::kConv1x1:
    case NatsOp::kConv3x3:
      break;
  }
  return conv(x, mode);
}

}  // namespace

at::Tensor NatsConv::operator()(const at::Tensor& x, NormMode mode) const {
  return batch_norm(conv(x.relu()), norm, mode);
}

at::Tensor NatsCellLayer::forward(const at::Tensor& x, NormMode mode) const {
  std::array<at::Tensor, 4> nodes{x};  // undefined: nothing arrives, all zeros
  for (std::size_t e = 0; e < kNatsEdges.size(); ++e) {
    const at::Tensor& from = nodes[static_cast<std::size_t>(kNatsEdges[e].from)];
    at::Tensor& to = nodes[static_cast<std::size_t>(kNatsEdges[e].to)];
    // A node without input is zero, and its edges still run: a norm turns zeros into its bias.
    const at::Tensor in = from.defined() ? from : at::zeros_like(x);
    const at::Tensor out = edge_output(cell.edges[e], edges[e], in, mode);
    if (out.defined()) to = to.defined() ? to + out : out;
  }
  return nodes[3].defined() ? nodes[3] : at::zeros_like(x);
}

at::Tensor NatsReduction::forward(const at::Tensor& x, NormMode mode) const {
  return downsample(at::avg_pool2d(x, {2, 2}, {2, 2})) + conv_b(conv_a(x, mode), mode);
}

at::Tensor NatsNet::forward(const at::Tensor& images, const CnnPass& pass) const {
  if (images.size(2) % kGrid != 0 || images.size(3) % kGrid != 0) {
    throw Error(ErrorKind::kInput, "images",
                format("have shape {}, but a cell net needs a height and width divisible by {}",
                       shape_text(images.sizes()), kGrid));
  }
  at::Tensor x = stem(images);
  std::int64_t index = 0;
  pass.show(index, x);
  x = batch_norm(x, stem_norm, pass.mode);
  for (const auto& cell : cells) {
    x = std::visit([&](const auto& layer) { return layer.forward(x, pass.mode); }, cell);
    pass.show(++index, x);
  }
  return classifier(global_average(batch_norm_relu(x, last_norm, pass.mode)));
}

NatsNet empty_nats_net(const CnnConfig& config) {
  const NatsCell cell = parse_nats_cell(config.arch);
  NatsNet net;
  std::int64_t width = kStemWidth;
  net.stem = empty_conv(config.in_channels, width, 3);
  net.stem_norm = empty_norm(width);
  for (std::int64_t i = 0; i < kNatsCells; ++i) {
    if (i % (kCellsPerGroup + 1) != kCellsPerGroup) {
      net.cells.emplace_back(empty_cell(cell, width));
      continue;
    }
    NatsReduction reduction;
    reduction.conv_a = empty_nats_conv(width, 2 * width, 3, /*stride=*/2);
    reduction.conv_b = empty_nats_conv(2 * width, 2 * width, 3);
    reduction.downsample = empty_conv(width, 2 * width, 1);
    net.cells.emplace_back(std::move(reduction));
    width *= 2;
  }
  net.last_norm = empty_norm(width);
  net.classifier = empty_dense(width, config.num_classes);
  return net;
}

}  // namespace espalier
