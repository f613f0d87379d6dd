// Work split of quantized_linear: output rows over threads, rows of x in groups of four.
#include "espalier/kernels/gguf_quants/gguf_dot.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/kernels/gguf_quants/simd_internal.h"

namespace espalier {
namespace {

constexpr std::int64_t kRowGroup = 4;
constexpr std::int64_t kOutputTile = 4;
// A thread takes at least this many weights, or starting it costs more than it gives.
constexpr std::int64_t kGrainWeights = 1 << 16;

struct Problem {
  GgufType type;
  const std::uint8_t* weight;
  std::size_t row_bytes, row_blocks;
  std::size_t in, out;
  const float* x;
  std::int64_t rows;
  float* y;
};

void few_rows(const Problem& p, std::int64_t begin, std::int64_t end) {
  const GgufSimd& simd = gguf_simd();
  for (std::int64_t o = begin; o < end; ++o) {
    const auto output = static_cast<std::size_t>(o);
    simd.dot(p.type, p.weight + output * p.row_bytes, p.row_blocks, p.x, p.in, static_cast<int>(p.rows), p.y + output,
             p.out);
  }
}

void many_rows(const Problem& p, std::int64_t begin, std::int64_t end) {
  const GgufSimd& simd = gguf_simd();
  std::vector<float> tile(static_cast<std::size_t>(kOutputTile) * p.in);
  for (std::int64_t o = begin; o < end; o += kOutputTile) {
    const std::int64_t outputs = std::min(kOutputTile, end - o);
    simd.dequantize(p.type, p.weight + static_cast<std::size_t>(o) * p.row_bytes,
                    static_cast<std::size_t>(outputs) * p.row_blocks, tile.data());
    for (std::int64_t r = 0; r < p.rows; r += kRowGroup) {
      const auto rows = static_cast<int>(std::min(kRowGroup, p.rows - r));
      const auto row = static_cast<std::size_t>(r);
      simd.dot_floats(tile.data(), p.in, static_cast<int>(outputs), p.x + row * p.in, p.in, rows,
                      p.y + row * p.out + static_cast<std::size_t>(o), p.out);
    }
  }
}

}  // namespace

void quantized_linear(GgufType type, std::span<const std::byte> weight, std::int64_t out_features,
                      std::int64_t in_features, std::span<const float> x, std::int64_t rows, std::span<float> y) {
  ESPALIER_ASSERT(out_features >= 0 && in_features >= 0 && rows >= 0);
  const GgufTypeInfo& info = gguf_type_info(type);
  ESPALIER_ASSERT(in_features % info.block == 0);
  ESPALIER_ASSERT(static_cast<std::int64_t>(weight.size()) == gguf_bytes(type, out_features * in_features));
  ESPALIER_ASSERT(static_cast<std::int64_t>(x.size()) == rows * in_features);
  ESPALIER_ASSERT(static_cast<std::int64_t>(y.size()) == rows * out_features);
  if (y.empty()) return;
  const Problem problem{type,
                        reinterpret_cast<const std::uint8_t*>(weight.data()),
                        static_cast<std::size_t>(gguf_bytes(type, in_features)),
                        static_cast<std::size_t>(in_features / info.block),
                        static_cast<std::size_t>(in_features),
                        static_cast<std::size_t>(out_features),
                        x.data(),
                        rows,
                        y.data()};
  const std::int64_t grain = std::max<std::int64_t>(kOutputTile, kGrainWeights / std::max<std::int64_t>(1, in_features));
  at::parallel_for(0, out_features, grain, [&](std::int64_t begin, std::int64_t end) {
    if (rows <= kRowGroup) {
      few_rows(problem, begin, end);
    } else {
      many_rows(problem, begin, end);
    }
  });
}

}  // namespace espalier
