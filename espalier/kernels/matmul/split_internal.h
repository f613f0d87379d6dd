// float32 products as three bfloat16 products on the matrix units (AMX) of recent Intel processors.
// Internal to kernels/matmul.
//
// x = high + low + rest with high = bf16(x), low = bf16(x - high); x y is taken as high high + high
// low + low high, summed in float32. What is left out is at most 2^-16 of |x||y| per term, a
// hundredth of what TF32 leaves out, and the library computes it in one product three times as
// long. Infinite inputs give NaN.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace espalier {

/// Whether the processor has bfloat16 matrix units and this libtorch the product for them.
bool has_split_products();

/// x [rows, in] weight^T, weight [out, in] -> [rows, out]; float32 CPU, no autograd.
at::Tensor split_nt(const at::Tensor& x, const at::Tensor& weight);
/// g [rows, out] weight [out, in] -> [rows, in].
at::Tensor split_nn(const at::Tensor& g, const at::Tensor& weight);
/// g^T x: g [rows, out], x [rows, in] -> [out, in].
at::Tensor split_tn(const at::Tensor& g, const at::Tensor& x);

/// high[i] and low[i] of `count` values, bfloat16 bits.
void split_bf16(const float* x, std::int64_t count, std::uint16_t* high, std::uint16_t* low);

}  // namespace espalier
