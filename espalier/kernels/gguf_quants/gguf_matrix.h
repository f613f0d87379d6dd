// A weight matrix as it lies in a GGUF file, for products of a few rows (decoding text), which are
// bound by reading the weights: a Q4_1 matrix is 0.625 bytes a weight against 4 of float32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include <ATen/core/Tensor.h>

#include "espalier/kernels/gguf_quants/gguf_quants.h"

namespace espalier {

struct GgufMatrix {
  GgufType type = GgufType::kF32;
  std::int64_t out = 0, in = 0;
  std::span<const std::byte> data;    // rows in the order of the outputs
  std::shared_ptr<const void> owner;  // keeps `data` alive
};

/// Rows of x up to which `gguf_matmul_nt` is the faster way.
constexpr std::int64_t kGgufFewRows = 8;

/// x W^T without autograd: `x` [..., in] float32 CPU -> [..., out]. With fewer than kGgufFewRows
/// rows the bits are those of matmul_nt on the dequantised matrix: activations stay float32,
/// weights are dequantised in registers, sums run in the same order.
at::Tensor gguf_matmul_nt(const at::Tensor& x, const GgufMatrix& weight);

}  // namespace espalier
