// What each instruction set offers: the same body (simd_body_internal.h) compiled once per set, picked at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "espalier/kernels/gguf_quants/gguf_quants.h"

namespace espalier {

struct GgufSimd {
  const char* name;
  /// Dequantises `blocks` blocks.
  void (*dequantize)(GgufType type, const std::uint8_t* bytes, std::size_t blocks, float* out);
  /// y[r * y_stride] = dot(one weight row of `blocks` blocks, x + r * x_stride) for r < rows; rows is 1 to 4.
  void (*dot)(GgufType type, const std::uint8_t* bytes, std::size_t blocks, const float* x, std::size_t x_stride,
              int rows, float* y, std::size_t y_stride);
  /// y[r * y_stride + o] = dot(weights + o * size, x + r * x_stride) for r < rows <= 4, o < outputs <= 4, all float.
  void (*dot_floats)(const float* weights, std::size_t size, int outputs, const float* x, std::size_t x_stride, int rows,
                     float* y, std::size_t y_stride);
};

extern const GgufSimd kGgufBaseline;
#if defined(__x86_64__)
extern const GgufSimd kGgufAvx2;
extern const GgufSimd kGgufAvx512;
#endif

/// The best set of this processor; decided once.
const GgufSimd& gguf_simd();
/// Every set this processor can run, for tests and benches; `count` receives how many.
const GgufSimd* const* gguf_simd_all(std::size_t& count);

}  // namespace espalier
