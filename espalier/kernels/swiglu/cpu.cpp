// silu_mul_ on the CPU.
#include "espalier/kernels/simd_internal.h"
#include "espalier/kernels/swiglu/kernels_internal.h"

namespace espalier {

ESPALIER_SIMD void silu_mul_f32(float* __restrict__ gate, const float* __restrict__ up,
                                std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) gate[i] = simd::silu(gate[i]) * up[i];
}

ESPALIER_SIMD void silu_mul_bf16(std::uint16_t* __restrict__ gate,
                                 const std::uint16_t* __restrict__ up, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float activated = simd::from_bf16(simd::to_bf16(simd::silu(simd::from_bf16(gate[i]))));
    gate[i] = simd::to_bf16(activated * simd::from_bf16(up[i]));
  }
}

ESPALIER_SIMD void silu_mul_backward_f32(const float* __restrict__ gate,
                                         const float* __restrict__ up, const float* __restrict__ g,
                                         float* __restrict__ dgate, float* __restrict__ dup,
                                         std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float sigma = 1.0f / (1.0f + simd::exp(-gate[i]));
    dgate[i] = g[i] * up[i] * (sigma * (1.0f + gate[i] * (1.0f - sigma)));
    dup[i] = g[i] * (gate[i] * sigma);
  }
}

ESPALIER_SIMD void silu_mul_backward_bf16(const std::uint16_t* __restrict__ gate,
                                          const std::uint16_t* __restrict__ up,
                                          const std::uint16_t* __restrict__ g,
                                          std::uint16_t* __restrict__ dgate,
                                          std::uint16_t* __restrict__ dup, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float x = simd::from_bf16(gate[i]), d = simd::from_bf16(g[i]);
    const float sigma = 1.0f / (1.0f + simd::exp(-x));
    dgate[i] = simd::to_bf16(d * simd::from_bf16(up[i]) * (sigma * (1.0f + x * (1.0f - sigma))));
    dup[i] = simd::to_bf16(d * (x * sigma));
  }
}

}  // namespace espalier
