// A dense layer as a plain struct of tensors: a full-precision or NF4 weight, and an optional
// low-rank adapter beside it.
#pragma once

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

#include "espalier/kernels/gguf_quants/gguf_matrix.h"
#include "espalier/kernels/nf4/nf4.h"
#include "espalier/nn/low_rank.h"

namespace espalier {

struct Linear {
  at::Tensor weight;  // [out, in]; undefined when `nf4` holds the weight
  at::Tensor bias;    // [out] or undefined
  std::shared_ptr<const Nf4Weight> nf4 = nullptr;
  /// Shared between copies of the layer; adapters are listed by models/decoder/adapters.h, not by
  /// `visit`, which names what a checkpoint of the model itself holds.
  std::shared_ptr<LowRank> adapter = nullptr;
  /// The weight once more, as its GGUF file holds it: products of a few rows read it instead of
  /// `weight`, with the same bits. Of models that only run (Decoder::decode_from_file): whoever
  /// changes `weight` must reset it.
  std::shared_ptr<const GgufMatrix> stored = nullptr;

  template <class V>
  void visit(V&& slot) {
    slot("weight", weight);
    slot("bias", bias);
  }

  /// False for a layer that this kind of block does not have.
  bool defined() const { return nf4 != nullptr || weight.defined(); }
  std::int64_t in_features() const { return nf4 ? nf4->shape[1] : weight.size(1); }
  std::int64_t out_features() const { return nf4 ? nf4->shape[0] : weight.size(0); }

  /// [..., in] -> [..., out]: base plus adapter.
  at::Tensor operator()(const at::Tensor& x) const;
  /// The frozen part alone: x W^T + bias, by kernels/matmul or kernels/nf4.
  at::Tensor base(const at::Tensor& x) const;
};

}  // namespace espalier
