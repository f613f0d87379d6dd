// Backends of rms_norm on raw memory: torch-free. Internal.
#pragma once

#include <cstdint>

namespace espalier {

/// `rows` rows of `width` contiguous elements; `y` may not overlap `x`. bf16 values are passed as
/// their 16 bits.
struct RmsNormParams {
  const void* x = nullptr;
  const void* weight = nullptr;
  void* y = nullptr;
  std::int64_t rows = 0, width = 0;
  float eps = 0;
  bool bf16 = false;
};

void rms_norm_cpu(const RmsNormParams& params, std::int64_t first_row, std::int64_t last_row);

/// The backward: dx of every row, and the row's 1 / rms for the weight's gradient. `dx` may not
/// overlap the inputs.
struct RmsNormBackwardParams {
  const void* x = nullptr;
  const void* weight = nullptr;
  const void* g = nullptr;
  void* dx = nullptr;
  float* scale = nullptr;  // [rows]
  std::int64_t rows = 0, width = 0;
  float eps = 0;
  bool bf16 = false;
};

void rms_norm_backward_cpu(const RmsNormBackwardParams& params, std::int64_t first_row,
                           std::int64_t last_row);

/// Rows that one partial sum of the weight's gradient covers.
constexpr std::int64_t kWeightGradientRows = 64;
/// partial[chunk] [width] = sum over the chunk's rows of g * x * scale; chunks of
/// kWeightGradientRows rows, so that the order of additions depends on nothing else.
void rms_norm_weight_gradient_cpu(const RmsNormBackwardParams& params, float* partial,
                                  std::int64_t first_chunk, std::int64_t last_chunk);

/// One block per row, fp32 accumulation; `stream` is a cudaStream_t. Only in builds with
/// ESPALIER_CUDA.
void launch_rms_norm(const RmsNormParams& params, void* stream);
void launch_rms_norm_backward(const RmsNormBackwardParams& params, void* stream);
void launch_rms_norm_weight_gradient(const RmsNormBackwardParams& params, float* partial,
                                     void* stream);

}  // namespace espalier
