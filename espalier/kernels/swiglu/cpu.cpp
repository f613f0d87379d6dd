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

}  // namespace espalier
