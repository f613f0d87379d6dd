// A 2-d convolution as a plain struct of tensors.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace espalier {

/// Square stride and padding, no dilation, no groups: what the CNNs here use.
struct Conv2d {
  at::Tensor weight;  // [out, in, kernel, kernel]
  at::Tensor bias;    // [out] or undefined
  std::int64_t stride = 1;
  std::int64_t padding = 0;

  template <class V>
  void visit(V&& slot) {
    slot("weight", weight);
    slot("bias", bias);
  }

  bool defined() const { return weight.defined(); }

  /// [n, in, h, w] -> [n, out, h', w'] in x's dtype and memory format. Weights of another dtype are
  /// cast on the fly, so float32 masters serve bfloat16 activations; their gradients are float32.
  at::Tensor operator()(const at::Tensor& x) const;
};

}  // namespace espalier
