// y = x W^T through the fastest library the machine has: on CPUs with AVX-512, float32 products
// go through oneDNN, which beats the MKL that libtorch links on AMD Zen 4/5 (2x measured) and keeps
// a row's bits on Intel's, where gradients stay with MKL.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <ATen/core/Tensor.h>

namespace espalier {

/// `x` [..., in], `weight` [out, in], optional `bias` [out] -> [..., out], a new tensor;
/// differentiable in all three. Same rows give the same bits whatever the number of rows, as long
/// as that number is at least 8 (tested): scores do not move with batch size. Falls back to
/// at::linear for other dtypes, devices, small shapes or when oneDNN is off.
at::Tensor matmul_nt(const at::Tensor& x, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias = std::nullopt);

/// y = g W without autograd: `g` [rows, out], `weight` [out, in] -> [rows, in]. The gradient of
/// matmul_nt in x.
at::Tensor matmul_nn(const at::Tensor& g, const at::Tensor& weight);

/// g^T x without autograd: `g` [rows, out], `x` [rows, in] -> [out, in]. The gradient of matmul_nt
/// in the weight.
at::Tensor matmul_tn(const at::Tensor& g, const at::Tensor& x);

/// True when float32 CPU products of this size go through oneDNN on this machine. Measured once per
/// process would make results depend on load, so it is decided from CPUID alone.
/// ESPALIER_MATMUL=aten|onednn overrides.
bool uses_onednn(std::int64_t rows, std::int64_t in, std::int64_t out);

/// Which library float32 CPU products use.
enum class MatmulBackend : std::uint8_t { kAten, kOnednn };
MatmulBackend matmul_backend();
/// "aten" or "onednn".
std::string_view matmul_backend_name();
/// Overrides the choice for this process, for tests and benches. kOnednn on a libtorch without it
/// is Error(kEnvironment).
void set_matmul_backend(MatmulBackend backend);

}  // namespace espalier
