// What each instruction set offers: the same body (simd_body_internal.h) compiled once per set,
// picked at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "espalier/kernels/gguf_quants/gguf_quants.h"

namespace espalier {

constexpr int kGgufLinearOutputs = 4;
constexpr int kGgufMaxLanes = 16;

struct GgufSimd {
  const char* name;
  /// Dequantises `blocks` blocks.
  void (*dequantize)(GgufType type, const std::uint8_t* bytes, std::size_t blocks, float* out);
  /// y[r * y_stride + o] = dot(weight row o, x row r) for o < outputs <= kGgufLinearOutputs and r <
  /// rows. `in`: elements of a row; `x` [rows, in]; `scratch`: rows * kGgufLinearOutputs *
  /// kGgufMaxLanes floats.
  void (*linear)(GgufType type, const std::uint8_t* weights, std::size_t row_bytes, std::size_t in,
                 int outputs, const float* x, std::size_t rows, float* y, std::size_t y_stride,
                 float* scratch);
  /// Quantises blocks (F16, BF16, Q8_0, Q4_0, Q4_1) and returns how many: it stops before a block
  /// that needs the scalar code, which then also reports what cannot be quantised.
  std::size_t (*quantize)(GgufType type, const float* values, std::size_t blocks,
                          std::uint8_t* out);
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
