// libtorch's oneDNN inner product on plain strided tensors. Internal to kernels/matmul.
#pragma once

#include <ATen/core/Tensor.h>

namespace espalier {

/// Whether this libtorch carries the operator and it keeps the bits of a row here (AVX-512).
bool has_onednn_linear();

/// x [rows, in] times weight^T, weight [out, in] with any strides -> new [rows, out]; float32 CPU,
/// no autograd. A dense operand or transposed dense operand is taken as it is; any other (columns
/// cut out of a wider matrix) is copied first, because oneDNN knows only its reference loop for it,
/// 20 times slower and more (measured: 8 of 24 columns, 1024 rows, 576 outputs).
at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace espalier
