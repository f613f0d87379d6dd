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

/// One block per row, fp32 accumulation; `stream` is a cudaStream_t. Only in builds with
/// ESPALIER_CUDA.
void launch_rms_norm(const RmsNormParams& params, void* stream);

}  // namespace espalier
