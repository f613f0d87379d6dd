// y = x W^T through the fastest library the machine has: on CPUs where oneDNN's AVX-512 kernels beat the MKL that
// libtorch links (AMD Zen 4/5: 2x measured), float32 products go through oneDNN, forward and backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace espalier {

/// `x` [..., in], `weight` [out, in], optional `bias` [out] -> [..., out]; differentiable in all three.
/// Same rows give the same bits whatever the number of rows, as long as that number is at least 8 (tested): scores do
/// not move with batch size. Falls back to at::linear for other dtypes, devices, small shapes or when oneDNN is off.
at::Tensor matmul_nt(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias = std::nullopt);

/// True when float32 CPU products of this size go through oneDNN on this machine. Measured once per process would make
/// results depend on load, so it is decided from CPUID alone. ESPALIER_MATMUL=aten|onednn overrides.
bool uses_onednn(int64_t rows, int64_t in, int64_t out);

}  // namespace espalier
