// keyed_dropout on the CPU: loops that the compiler vectorises.
#include "espalier/kernels/keyed_dropout/kernels_internal.h"
#include "espalier/kernels/simd_internal.h"

namespace espalier {
namespace {

ESPALIER_SIMD void run_f32(const float* x, float* y, std::uint64_t key, std::uint32_t threshold,
                           float scale, bool add, std::int64_t first, std::int64_t last) {
  for (std::int64_t i = first; i < last; ++i) {
    const bool kept = element_hash(key, static_cast<std::uint64_t>(i)) >= threshold;
    const float value = kept ? x[i] * scale : 0.0f;
    y[i] = add ? y[i] + value : value;
  }
}

ESPALIER_SIMD void run_bf16(const std::uint16_t* x, std::uint16_t* y, std::uint64_t key,
                            std::uint32_t threshold, float scale, bool add, std::int64_t first,
                            std::int64_t last) {
  for (std::int64_t i = first; i < last; ++i) {
    const bool kept = element_hash(key, static_cast<std::uint64_t>(i)) >= threshold;
    const float value = kept ? simd::from_bf16(x[i]) * scale : 0.0f;
    y[i] = simd::to_bf16(add ? simd::from_bf16(y[i]) + value : value);
  }
}

}  // namespace

void keyed_dropout_cpu(const DropoutParams& p, std::int64_t first, std::int64_t last) {
  const std::uint64_t key =
      mask_key(p.seed, p.stream, static_cast<std::uint64_t>(p.counter == nullptr ? 0 : *p.counter));
  if (p.bf16)
    run_bf16(static_cast<const std::uint16_t*>(p.x), static_cast<std::uint16_t*>(p.y), key,
             p.threshold, p.scale, p.add, first, last);
  else
    run_f32(static_cast<const float*>(p.x), static_cast<float*>(p.y), key, p.threshold, p.scale,
            p.add, first, last);
}

}  // namespace espalier
