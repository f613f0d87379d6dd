// The split of float32 into two bfloat16 parts, vectorised: a torch-free loop.
#include "espalier/kernels/matmul/split_internal.h"
#include "espalier/kernels/simd_internal.h"

namespace espalier {

ESPALIER_SIMD void split_bf16(const float* x, std::int64_t count, std::uint16_t* high,
                              std::uint16_t* low) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint16_t top = simd::to_bf16(x[i]);
    high[i] = top;
    low[i] = simd::to_bf16(x[i] - simd::from_bf16(top));
  }
}

}  // namespace espalier
