// rope on the CPU, in place.
#include "espalier/kernels/rope/kernels_internal.h"
#include "espalier/kernels/simd_internal.h"

namespace espalier {

ESPALIER_SIMD void rope_row_f32(float* x, const float* cosine, const float* sine,
                                std::int64_t heads, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t head = 0; head < heads; ++head) {
    float* __restrict__ low = x + head * head_dim;
    float* __restrict__ high = low + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = low[i], b = high[i];
      low[i] = a * cosine[i] - b * sine[i];
      high[i] = b * cosine[half + i] + a * sine[half + i];
    }
  }
}

ESPALIER_SIMD void rope_row_bf16(std::uint16_t* x, const std::uint16_t* cosine,
                                 const std::uint16_t* sine, std::int64_t heads,
                                 std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  const auto product = [](float a, std::uint16_t b) {
    return simd::from_bf16(simd::to_bf16(a * simd::from_bf16(b)));
  };
  for (std::int64_t head = 0; head < heads; ++head) {
    std::uint16_t* __restrict__ low = x + head * head_dim;
    std::uint16_t* __restrict__ high = low + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = simd::from_bf16(low[i]), b = simd::from_bf16(high[i]);
      low[i] = simd::to_bf16(product(a, cosine[i]) - product(b, sine[i]));
      high[i] = simd::to_bf16(product(b, cosine[half + i]) + product(a, sine[half + i]));
    }
  }
}

ESPALIER_SIMD void rope_back_row_f32(float* x, const float* cosine, const float* sine,
                                     std::int64_t heads, std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t head = 0; head < heads; ++head) {
    float* __restrict__ low = x + head * head_dim;
    float* __restrict__ high = low + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = low[i], b = high[i];
      low[i] = a * cosine[i] + b * sine[half + i];
      high[i] = b * cosine[half + i] - a * sine[i];
    }
  }
}

ESPALIER_SIMD void rope_back_row_bf16(std::uint16_t* x, const std::uint16_t* cosine,
                                      const std::uint16_t* sine, std::int64_t heads,
                                      std::int64_t head_dim) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t head = 0; head < heads; ++head) {
    std::uint16_t* __restrict__ low = x + head * head_dim;
    std::uint16_t* __restrict__ high = low + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = simd::from_bf16(low[i]), b = simd::from_bf16(high[i]);
      low[i] = simd::to_bf16(a * simd::from_bf16(cosine[i]) + b * simd::from_bf16(sine[half + i]));
      high[i] = simd::to_bf16(b * simd::from_bf16(cosine[half + i]) - a * simd::from_bf16(sine[i]));
    }
  }
}

}  // namespace espalier
