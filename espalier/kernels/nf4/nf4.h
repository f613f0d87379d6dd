// NF4 weights: 16 levels at quantiles of a normal distribution, one scale per block, the scales
// themselves optionally quantised to 8 bits. Bytes and scales are those of the bitsandbytes
// package, bit for bit.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/kernels/nf4/levels.h"

namespace espalier {

/// A quantised matrix; all tensors on one device, CPU or CUDA. Plain data, shared between copies.
struct Nf4Weight {
  std::vector<std::int64_t> shape;  // [out, in], flattened row-major before it is cut into blocks
  std::int64_t block = 64;          // elements per scale; even; the last block may be short
  at::Tensor packed;                // uint8 [ceil(numel / 2)]: element 2i in the high nibble
  /// One scale per block: float32, or (double quantised) uint8 indices into `nested_map`.
  at::Tensor absmax;
  at::Tensor nested_absmax;         // float32 [ceil(blocks / nested_block)], else undefined
  at::Tensor nested_map;            // float32 [256], else undefined
  std::int64_t nested_block = 256;  // scales per scale of scales
  float nested_offset = 0;          // mean of the scales, subtracted before they were quantised
  /// Values are rounded to this type on their way to any other: files say which type a matrix had
  /// before it was quantised, and the packages that wrote them compute with it.
  at::ScalarType rounding = at::kFloat;

  bool nested() const { return nested_absmax.defined(); }
  std::int64_t numel() const;
  std::int64_t blocks() const;
  at::Device device() const { return packed.device(); }
  /// Bytes of all tensors.
  std::uint64_t nbytes() const;
  Nf4Weight to(at::Device device) const;
};

struct Nf4Options {
  bool double_quantised = true;
  std::int64_t block = 64;  // a power of two, 32-4096
};

/// Quantises `weight` [out, in] (float32, bfloat16 or float16; CPU or CUDA). A value equal to the
/// midpoint of two levels takes the lower one; blocks of zeros give level 7 and scale 0. Throws
/// Error(kInput) for values that are not finite, Error(kUsage) for an unknown block size. The
/// result is computed on the CPU and moved to the weight's device. Source: bitsandbytes 0.50 on the
/// CPU, quantize_4bit (its CUDA kernel may choose the neighbouring 8-bit scale at ties).
Nf4Weight nf4_quantize(const at::Tensor& weight, const Nf4Options& options = {});

/// The scales as float32 [blocks]: absmax itself, or nested_map[absmax] * nested_absmax + offset.
at::Tensor nf4_scales(const Nf4Weight& weight);

/// level * scale in float32, rounded to `type` (float32, bfloat16, float16): [out, in] on the
/// weight's device.
at::Tensor nf4_dequantize(const Nf4Weight& weight, at::ScalarType type);
/// Rows first..first+count-1 of it.
at::Tensor nf4_dequantize_rows(const Nf4Weight& weight, std::int64_t first, std::int64_t count,
                               at::ScalarType type);

/// x W^T + bias: `x` [..., in] float32 or bfloat16 -> [..., out] in x's dtype, differentiable in x
/// and bias, never in W. Equals kernels/matmul on the dequantised weight: rows keep their bits from
/// 8 rows on. CPU memory: one tile of dequantised rows (about 4 MiB); CUDA: the weight in x's
/// dtype for the duration of the call.
at::Tensor nf4_matmul_nt(const at::Tensor& x, const Nf4Weight& weight,
                         const std::optional<at::Tensor>& bias = std::nullopt);
/// g W without autograd: `g` [rows, out] -> [rows, in]; the gradient of nf4_matmul_nt in x.
at::Tensor nf4_matmul_nn(const at::Tensor& g, const Nf4Weight& weight);

/// The definitions, element by element in plain loops; CPU.
Nf4Weight nf4_quantize_reference(const at::Tensor& weight, const Nf4Options& options = {});
at::Tensor nf4_dequantize_reference(const Nf4Weight& weight);

}  // namespace espalier
