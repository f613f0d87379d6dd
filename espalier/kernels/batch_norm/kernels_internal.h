// Backends of batch_norm_train on raw memory: torch-free. Internal.
#pragma once

#include <algorithm>
#include <cstdint>

namespace espalier {

/// Rows are pixels, `channels` contiguous values each; bf16 values are passed as their 16 bits.
/// Statistics are taken over chunks of `chunk_rows` rows, whose results are then joined in order.
struct BatchNormParams {
  const void* x = nullptr;
  const void* residual = nullptr;  // or null
  void* y = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float* running_mean = nullptr;  // this and the next two may be null
  float* running_var = nullptr;
  std::int64_t* counter = nullptr;
  float* mean = nullptr;     // [channels], out
  float* invstd = nullptr;   // [channels], out
  float* partial = nullptr;  // [chunks, 2, channels]: mean, then sum of squared deviations from it
  std::int64_t rows = 0, channels = 0, chunk_rows = 0;
  float momentum = 0, eps = 0;
  bool bf16 = false, relu = false;
};

/// With g' = g where the ReLU let through, else 0, and d = x - mean:
/// dbias = sum g', dweight = invstd sum g' d, dresidual = g',
/// dx = weight invstd (g' - dbias / rows - d invstd dweight / rows).
struct BatchNormBackwardParams {
  const void* x = nullptr;
  const void* y = nullptr;  // null: without residual the ReLU's mask follows from x
  const void* g = nullptr;
  void* dx = nullptr;
  void* dresidual = nullptr;  // or null
  const float* weight = nullptr;
  const float* bias = nullptr;
  const float* mean = nullptr;
  const float* invstd = nullptr;
  float* dweight = nullptr;
  float* dbias = nullptr;
  float* partial = nullptr;  // [chunks, 2, channels]: sum g', then sum g' d
  std::int64_t rows = 0, channels = 0, chunk_rows = 0;
  bool bf16 = false, relu = false;
};

inline std::int64_t batch_norm_chunks(std::int64_t rows, std::int64_t chunk_rows) {
  return (rows + chunk_rows - 1) / chunk_rows;
}

/// Rows of a chunk: constant on the CPU, so that the order of additions does not depend on threads.
constexpr std::int64_t kBatchNormCpuChunk = 256;

void batch_norm_statistics_cpu(const BatchNormParams& p, std::int64_t first_chunk,
                               std::int64_t last_chunk);
/// Joins the chunks and updates the running statistics; on one thread.
void batch_norm_finish_cpu(const BatchNormParams& p);
void batch_norm_apply_cpu(const BatchNormParams& p, std::int64_t first_row, std::int64_t last_row);

void batch_norm_backward_sums_cpu(const BatchNormBackwardParams& p, std::int64_t first_chunk,
                                  std::int64_t last_chunk);
void batch_norm_backward_finish_cpu(const BatchNormBackwardParams& p);
void batch_norm_backward_apply_cpu(const BatchNormBackwardParams& p, std::int64_t first_row,
                                   std::int64_t last_row);

/// Rows of a chunk on CUDA: about two chunks for each of an H100's 132 multiprocessors, where a
/// block covers up to 256 channels.
inline std::int64_t batch_norm_cuda_chunk(std::int64_t rows, std::int64_t channels) {
  const std::int64_t blocks = std::max<std::int64_t>(1, 264 / ((channels + 255) / 256));
  return std::max<std::int64_t>(16, (rows + blocks - 1) / blocks);
}

/// Three launches each; `stream` is a cudaStream_t. Only in builds with ESPALIER_CUDA.
void launch_batch_norm(const BatchNormParams& params, void* stream);
void launch_batch_norm_backward(const BatchNormBackwardParams& params, void* stream);

}  // namespace espalier
