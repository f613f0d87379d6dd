// A dense layer as a plain struct of tensors.
#pragma once

#include <ATen/core/Tensor.h>

namespace espalier {

struct Linear {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out] or undefined

  template <class V>
  void visit(V&& slot) {
    slot("weight", weight);
    slot("bias", bias);
  }

  /// [..., in] -> [..., out], by kernels/matmul.
  at::Tensor operator()(const at::Tensor& x) const;
};

}  // namespace espalier
