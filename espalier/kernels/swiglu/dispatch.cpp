// Checks, autograd and choice of backend for silu_mul_.
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/swiglu/kernels_internal.h"
#include "espalier/kernels/swiglu/swiglu.h"

namespace espalier {
namespace {

constexpr std::int64_t kGrainElements = 16384;

bool has_kernel(const at::Tensor& gate, const at::Tensor& up) {
  const bool type = gate.scalar_type() == at::kFloat || gate.scalar_type() == at::kBFloat16;
  return type && gate.scalar_type() == up.scalar_type() && gate.device().is_cpu() &&
         up.device().is_cpu() && gate.is_contiguous() && up.is_contiguous();
}

}  // namespace

at::Tensor silu_mul_(const at::Tensor& gate, const at::Tensor& up) {
  ESPALIER_ASSERT(gate.sizes() == up.sizes());
  if (needs_grad(gate, up) || !has_kernel(gate, up)) return silu_mul_reference(gate, up);
  const bool bf16 = gate.scalar_type() == at::kBFloat16;
  void* g = gate.mutable_data_ptr();
  const void* u = up.const_data_ptr();
  at::parallel_for(0, gate.numel(), kGrainElements, [&](std::int64_t first, std::int64_t last) {
    if (bf16)
      silu_mul_bf16(static_cast<std::uint16_t*>(g) + first,
                    static_cast<const std::uint16_t*>(u) + first, last - first);
    else
      silu_mul_f32(static_cast<float*>(g) + first, static_cast<const float*>(u) + first,
                   last - first);
  });
  return gate;
}

}  // namespace espalier
