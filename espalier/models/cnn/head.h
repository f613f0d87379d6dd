// The last layers of a classifier: a dense layer whose weights are cast to the activations' dtype,
// and dropout whose masks come from a key. Decoders have their own Linear, with adapters and
// quantised weights.
#pragma once

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "espalier/nn/batch_norm.h"
#include "espalier/nn/low_rank.h"

namespace espalier {

/// Called with each feature of the hidden set, in order.
using FeatureVisitor = std::function<void(std::int64_t index, const at::Tensor& feature)>;

/// What one pass through a net needs beside its images.
struct CnnPass {
  NormMode mode = NormMode::kRunning;
  const FeatureVisitor& visit;            // may be empty
  const DropoutState* dropout = nullptr;  // null or not active: none

  void show(std::int64_t index, const at::Tensor& feature) const {
    if (visit) visit(index, feature);
  }
};

struct Dense {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out]

  template <class V>
  void visit(V&& slot) {
    slot("weight", weight);
    slot("bias", bias);
  }

  at::Tensor operator()(const at::Tensor& x) const;  // [n, in] -> [n, out] in x's dtype
};

/// Mean over height and width: [n, c, h, w] -> [n, c].
at::Tensor global_average(const at::Tensor& x);

/// x with the pass's mask `stream` at rate p, differentiable; x itself without dropout or in
/// kRunning mode.
at::Tensor masked_dropout(const at::Tensor& x, double p, const CnnPass& pass, std::uint64_t stream);

}  // namespace espalier
