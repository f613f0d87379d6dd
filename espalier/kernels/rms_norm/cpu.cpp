// rms_norm on the CPU: two passes over a row that stays in the L1 cache.
#include <algorithm>
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

/// Returns 1 / rms. dx = scale * (g w - n * mean(g w n)) with n = x * scale.
ESPALIER_SIMD float backward_row_f32(const float* x, const float* weight, const float* g, float* dx,
                                     std::int64_t width, float eps) {
  float squares[kLanes] = {}, products[kLanes] = {};
  const std::int64_t whole = width / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      squares[j] += x[i + j] * x[i + j];
      products[j] += g[i + j] * weight[i + j] * x[i + j];
    }
  }
  for (std::int64_t i = whole; i < width; ++i) {
    squares[i - whole] += x[i] * x[i];
    products[i - whole] += g[i] * weight[i] * x[i];
  }
  const float mean = simd::sum_lanes(squares) / static_cast<float>(width);
  const float scale = 1.0f / std::sqrt(mean + eps);
  const float pull = simd::sum_lanes(products) * scale * scale * scale / static_cast<float>(width);
  for (std::int64_t i = 0; i < width; ++i) dx[i] = g[i] * weight[i] * scale - x[i] * pull;
  return scale;
}

ESPALIER_SIMD float backward_row_bf16(const std::uint16_t* x, const std::uint16_t* weight,
                                      const std::uint16_t* g, std::uint16_t* dx, std::int64_t width,
                                      float eps) {
  float squares[kLanes] = {}, products[kLanes] = {};
  const std::int64_t whole = width / kLanes * kLanes;
  const auto add = [&](std::int64_t i, std::int64_t lane) {
    const float v = simd::from_bf16(x[i]);
    squares[lane] += v * v;
    products[lane] += simd::from_bf16(g[i]) * simd::from_bf16(weight[i]) * v;
  };
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) add(i + j, j);
  }
  for (std::int64_t i = whole; i < width; ++i) add(i, i - whole);
  const float mean = simd::sum_lanes(squares) / static_cast<float>(width);
  const float scale = 1.0f / std::sqrt(mean + eps);
  const float pull = simd::sum_lanes(products) * scale * scale * scale / static_cast<float>(width);
  for (std::int64_t i = 0; i < width; ++i) {
    dx[i] = simd::to_bf16(simd::from_bf16(g[i]) * simd::from_bf16(weight[i]) * scale -
                          simd::from_bf16(x[i]) * pull);
  }
  return scale;
}

ESPALIER_SIMD void add_weight_gradient_f32(const float* x, const float* g, float scale, float* sum,
                                           std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) sum[i] += g[i] * (x[i] * scale);
}

ESPALIER_SIMD void add_weight_gradient_bf16(const std::uint16_t* x, const std::uint16_t* g,
                                            float scale, float* sum, std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i)
    sum[i] += simd::from_bf16(g[i]) * (simd::from_bf16(x[i]) * scale);
}

}  // namespace

void rms_norm_backward_cpu(const RmsNormBackwardParams& p, std::int64_t first_row,
                           std::int64_t last_row) {
  for (std::int64_t row = first_row; row < last_row; ++row) {
    const std::int64_t at = row * p.width;
    if (p.bf16) {
      p.scale[row] = backward_row_bf16(static_cast<const std::uint16_t*>(p.x) + at,
                                       static_cast<const std::uint16_t*>(p.weight),
                                       static_cast<const std::uint16_t*>(p.g) + at,
                                       static_cast<std::uint16_t*>(p.dx) + at, p.width, p.eps);
    } else {
      p.scale[row] = backward_row_f32(
          static_cast<const float*>(p.x) + at, static_cast<const float*>(p.weight),
          static_cast<const float*>(p.g) + at, static_cast<float*>(p.dx) + at, p.width, p.eps);
    }
  }
}

void rms_norm_weight_gradient_cpu(const RmsNormBackwardParams& p, float* partial,
                                  std::int64_t first_chunk, std::int64_t last_chunk) {
  for (std::int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
    float* sum = partial + chunk * p.width;
    std::fill(sum, sum + p.width, 0.0f);
    const std::int64_t end = std::min(p.rows, (chunk + 1) * kWeightGradientRows);
    for (std::int64_t row = chunk * kWeightGradientRows; row < end; ++row) {
      const std::int64_t at = row * p.width;
      if (p.bf16) {
        add_weight_gradient_bf16(static_cast<const std::uint16_t*>(p.x) + at,
                                 static_cast<const std::uint16_t*>(p.g) + at, p.scale[row], sum,
                                 p.width);
      } else {
        add_weight_gradient_f32(static_cast<const float*>(p.x) + at,
                                static_cast<const float*>(p.g) + at, p.scale[row], sum, p.width);
      }
    }
  }
}

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
