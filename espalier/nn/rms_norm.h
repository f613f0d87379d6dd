// Root-mean-square normalisation as a plain struct of tensors.
#pragma once

#include <ATen/core/Tensor.h>

namespace espalier {

struct RmsNorm {
  at::Tensor weight;  // [width]
  double eps = 1e-5;
  /// gemma: multiplies by 1 + weight, in float32, and rounds once.
  bool plus_one = false;

  template <class V>
  void visit(V&& slot) {
    slot("weight", weight);
  }

  bool defined() const { return weight.defined(); }

  /// [..., width] -> same shape and dtype, by kernels/rms_norm.
  at::Tensor operator()(const at::Tensor& x) const;
};

}  // namespace espalier
