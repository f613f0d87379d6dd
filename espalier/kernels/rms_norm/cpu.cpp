// rms_norm on the CPU: two passes over a row that stays in the L1 cache.
#include <cmath>

#include "espalier/kernels/rms_norm/kernels_internal.h"
#include "espalier/kernels/simd_internal.h"

namespace espalier {
namespace {

using simd::kLanes;

ESPALIER_SIMD void norm_row_f32(const float* x, const float* weight, float* y, std::int64_t width,
                                float eps) {
  float lanes[kLanes] = {};
  const std::int64_t whole = width / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += x[i + j] * x[i + j];
  }
  for (std::int64_t i = whole; i < width; ++i) lanes[i - whole] += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(simd::sum_lanes(lanes) / static_cast<float>(width) + eps);
  for (std::int64_t i = 0; i < width; ++i) y[i] = weight[i] * (x[i] * scale);
}

ESPALIER_SIMD void norm_row_bf16(const std::uint16_t* x, const std::uint16_t* weight,
                                 std::uint16_t* y, std::int64_t width, float eps) {
  float lanes[kLanes] = {};
  const std::int64_t whole = width / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const float v = simd::from_bf16(x[i + j]);
      lanes[j] += v * v;
    }
  }
  for (std::int64_t i = whole; i < width; ++i)
    lanes[i - whole] += simd::from_bf16(x[i]) * simd::from_bf16(x[i]);
  const float scale = 1.0f / std::sqrt(simd::sum_lanes(lanes) / static_cast<float>(width) + eps);
  for (std::int64_t i = 0; i < width; ++i) {
    const float normed = simd::from_bf16(simd::to_bf16(simd::from_bf16(x[i]) * scale));
    y[i] = simd::to_bf16(simd::from_bf16(weight[i]) * normed);
  }
}

}  // namespace

void rms_norm_cpu(const RmsNormParams& params, std::int64_t first_row, std::int64_t last_row) {
  for (std::int64_t row = first_row; row < last_row; ++row) {
    const std::int64_t at = row * params.width;
    if (params.bf16) {
      norm_row_bf16(static_cast<const std::uint16_t*>(params.x) + at,
                    static_cast<const std::uint16_t*>(params.weight),
                    static_cast<std::uint16_t*>(params.y) + at, params.width, params.eps);
    } else {
      norm_row_f32(static_cast<const float*>(params.x) + at,
                   static_cast<const float*>(params.weight), static_cast<float*>(params.y) + at,
                   params.width, params.eps);
    }
  }
}

}  // namespace espalier
