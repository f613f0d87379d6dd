// Softmax pieces over one row, vectorised: torch-free loops.
#include <cmath>
#include <limits>

#include "espalier/kernels/linear_cross_entropy/rows_internal.h"
#include "espalier/kernels/simd_internal.h"

namespace espalier {

using simd::kLanes;

/// Folds `count` logits into the running maximum and the sum of exp(logit - max). NaN anywhere
/// makes the sum NaN.
ESPALIER_SIMD void lse_row_f32(const float* logits, std::int64_t count, float* max, double* sum) {
  float highest[kLanes], lanes[kLanes] = {};
  for (std::int64_t j = 0; j < kLanes; ++j) highest[j] = *max;
  const std::int64_t whole = count / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j)
      highest[j] = logits[i + j] > highest[j] ? logits[i + j] : highest[j];
  }
  for (std::int64_t i = whole; i < count; ++i)
    highest[0] = logits[i] > highest[0] ? logits[i] : highest[0];
  float top = highest[0];
  for (std::int64_t j = 1; j < kLanes; ++j) top = highest[j] > top ? highest[j] : top;
  if (top == -std::numeric_limits<float>::infinity())
    top = std::numeric_limits<float>::lowest();  // only -inf so far
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += simd::exp(logits[i + j] - top);
  }
  for (std::int64_t i = whole; i < count; ++i) lanes[i - whole] += simd::exp(logits[i] - top);
  *sum = *sum * std::exp(static_cast<double>(*max) - top) + simd::sum_lanes(lanes);
  *max = top;
}

ESPALIER_SIMD void softmax_gradient_row_f32(float* logits, std::int64_t count, float log_sum_exp,
                                            float scale) {
  for (std::int64_t i = 0; i < count; ++i) logits[i] = simd::exp(logits[i] - log_sum_exp) * scale;
}

}  // namespace espalier
