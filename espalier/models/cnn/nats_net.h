// The network around a NATS cell (NAS-Bench-201's macro skeleton): a stem, three groups of five
// cells at 16, 32, 64 channels with a residual block of stride 2 between them, a linear classifier.
// Names follow the published checkpoints: stem, cells.{0..16}, lastact, classifier.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/models/cnn/config.h"
#include "espalier/models/cnn/head.h"
#include "espalier/models/cnn/nats_cell.h"
#include "espalier/nn/batch_norm.h"
#include "espalier/nn/conv2d.h"

namespace espalier {

/// ReLU, convolution, norm: `op.1`, `op.2`.
struct NatsConv {
  Conv2d conv;
  BatchNorm norm;

  template <class V>
  void visit(V&& slot) {
    slot("op.1", conv);
    slot("op.2", norm);
  }

  at::Tensor operator()(const at::Tensor& x, NormMode mode) const;
};

/// One copy of the cell. Edges that are no convolution have no tensors.
struct NatsCellLayer {
  NatsCell cell;
  std::array<NatsConv, 6> edges;

  template <class V>
  void visit(V&& slot) {
    for (std::size_t e = 0; e < edges.size(); ++e)
      slot(("layers." + std::to_string(e)).c_str(), edges[e]);
  }

  at::Tensor forward(const at::Tensor& x, NormMode mode) const;
};

/// Halves the size and doubles the channels: two convolutions beside a pooled projection, no
/// activation behind the sum.
struct NatsReduction {
  NatsConv conv_a, conv_b;
  Conv2d downsample;  // behind a 2 x 2 mean

  template <class V>
  void visit(V&& slot) {
    slot("conv_a", conv_a);
    slot("conv_b", conv_b);
    slot("downsample.1", downsample);
  }

  at::Tensor forward(const at::Tensor& x, NormMode mode) const;
};

struct NatsNet {
  Conv2d stem;
  BatchNorm stem_norm;
  std::vector<std::variant<NatsCellLayer, NatsReduction>> cells;
  BatchNorm last_norm;
  Dense classifier;

  template <class V>
  void visit(V&& slot) {
    slot("stem.0", stem);
    slot("stem.1", stem_norm);
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::string name = "cells." + std::to_string(i);
      std::visit([&](auto& cell) { slot(name.c_str(), cell); }, cells[i]);
    }
    slot("lastact.0", last_norm);
    slot("classifier", classifier);
  }

  /// images [n, c, h, w] -> logits [n, classes]. Shows the stem convolution's output before its
  /// norm, then every cell's output.
  at::Tensor forward(const at::Tensor& images, const CnnPass& pass) const;
};

/// The network of a config with float32 tensors of the right shapes and no values.
NatsNet empty_nats_net(const CnnConfig& config);

}  // namespace espalier
