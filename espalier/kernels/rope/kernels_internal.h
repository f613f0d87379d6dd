// Backends of rope on raw memory: torch-free. Internal.
#pragma once

#include <cstdint>

namespace espalier {

/// Turns the heads of one token in place: x [heads, head_dim], cosine and sine [head_dim]. bf16 as
/// 16-bit patterns.
void rope_row_f32(float* x, const float* cosine, const float* sine, std::int64_t heads,
                  std::int64_t head_dim);
void rope_row_bf16(std::uint16_t* x, const std::uint16_t* cosine, const std::uint16_t* sine,
                   std::int64_t heads, std::int64_t head_dim);

/// The transposed turn, which carries gradients back: low = a c + b s', high = b c' - a s with the
/// tables' second halves marked by a stroke.
void rope_back_row_f32(float* x, const float* cosine, const float* sine, std::int64_t heads,
                       std::int64_t head_dim);
void rope_back_row_bf16(std::uint16_t* x, const std::uint16_t* cosine, const std::uint16_t* sine,
                        std::int64_t heads, std::int64_t head_dim);

/// All rows of x [rows, heads, head_dim] in place; row i takes line i % tokens of the tables.
struct RopeParams {
  void* x = nullptr;
  const void* cosine = nullptr;
  const void* sine = nullptr;
  std::int64_t rows = 0, tokens = 0, heads = 0, head_dim = 0;
  bool bf16 = false, back = false;
};
/// Only in builds with ESPALIER_CUDA; `stream` is a cudaStream_t.
void launch_rope(const RopeParams& params, void* stream);

}  // namespace espalier
