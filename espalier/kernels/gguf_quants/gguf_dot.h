// Matrix product with weights that stay quantised: y = x W^T, W as it lies in the (mapped) file.
//
// Four weight rows are unpacked a few hundred columns at a time into a buffer in the first-level
// cache and used there by all rows of x. With few rows the product is bound by reading W once: a
// Q4_0 matrix costs 0.56 bytes of traffic per weight instead of 8.56 (read, write and read again)
// for dequantise-then-multiply. Torch-free signature; threads are ATen's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "espalier/kernels/gguf_quants/gguf_quants.h"

namespace espalier {

/// y[r, o] = sum over i of x[r, i] * dequantised(W)[o, i].
///
/// `weight`: out_features rows of in_features elements, gguf_bytes(type, out * in) bytes;
/// in_features must be a multiple of the type's block. `x` [rows, in_features], `y` [rows,
/// out_features], row-major float32. Sums are float32 with multiply-add, in an order that depends
/// on in_features and the processor only: the result of a row is bit-equal for every thread count
/// and every number of rows beside it. Empty sizes give zeros or nothing. Throws Error(kInternal)
/// when sizes do not match.
void quantized_linear(GgufType type, std::span<const std::byte> weight, std::int64_t out_features,
                      std::int64_t in_features, std::span<const float> x, std::int64_t rows,
                      std::span<float> y);

}  // namespace espalier
