// libtorch's oneDNN inner product on plain strided tensors. Internal to kernels/matmul.
#pragma once

#include <ATen/core/Tensor.h>

namespace espalier {

/// Whether this libtorch carries the operator and it keeps the bits of a row here (AVX-512).
bool has_onednn_linear();

/// x [rows, in] times weight^T, weight [out, in] with any strides -> new [rows, out]; float32 CPU,
/// no autograd. Neither operand is copied or reordered ahead of time.
at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace espalier
