// gelu_mul: one loop for the CPU, because ATen's vectorised gelu rounds the last elements of a
// tensor otherwise than the rest; ATen everywhere else.
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/simd_internal.h"
#include "espalier/kernels/swiglu/swiglu.h"

namespace espalier {
namespace {

/// out = gelu(x), as x / (1 + e^-2u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
ESPALIER_SIMD void gelu_f32(const float* __restrict__ x, float* __restrict__ out,
                            std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float u = 0.7978845608f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
    out[i] = x[i] / (1.0f + simd::exp(-2.0f * u));
  }
}

}  // namespace

at::Tensor gelu_mul(const at::Tensor& gate, const at::Tensor& up) {
  ESPALIER_ASSERT(gate.sizes() == up.sizes());
  if (needs_grad(gate, up) || !gate.device().is_cpu()) return at::gelu(gate, "tanh") * up;
  const at::Tensor wide = gate.to(at::kFloat).contiguous();
  const at::Tensor out = at::empty_like(wide);
  const float* from = wide.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, wide.numel(), 16384, [&](std::int64_t first, std::int64_t last) {
    gelu_f32(from + first, to + first, last - first);
  });
  return out.to(gate.scalar_type()) * up;
}

}  // namespace espalier
