// Work split of quantized_linear: output rows over threads, four at a time.
#include "espalier/kernels/gguf_quants/gguf_dot.h"

#include <algorithm>
#include <vector>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/kernels/gguf_quants/simd_internal.h"

namespace espalier {
namespace {

// A thread takes at least this many weights, or starting it costs more than it gives.
constexpr std::int64_t kGrainWeights = 1 << 16;
// Rows of x per pass: their sums stay in the second-level cache.
constexpr std::int64_t kRowPass = 256;

}  // namespace

void quantized_linear(GgufType type, std::span<const std::byte> weight, std::int64_t out_features,
                      std::int64_t in_features, std::span<const float> x, std::int64_t rows,
                      std::span<float> y) {
  ESPALIER_ASSERT(out_features >= 0 && in_features >= 0 && rows >= 0);
  const GgufTypeInfo& info = gguf_type_info(type);
  ESPALIER_ASSERT(in_features % info.block == 0);
  ESPALIER_ASSERT(static_cast<std::int64_t>(weight.size()) ==
                  gguf_bytes(type, out_features * in_features));
  ESPALIER_ASSERT(static_cast<std::int64_t>(x.size()) == rows * in_features);
  ESPALIER_ASSERT(static_cast<std::int64_t>(y.size()) == rows * out_features);
  if (y.empty()) return;
  const auto in = static_cast<std::size_t>(in_features),
             out = static_cast<std::size_t>(out_features);
  const auto row_bytes = static_cast<std::size_t>(gguf_bytes(type, in_features));
  const auto* weights = reinterpret_cast<const std::uint8_t*>(weight.data());
  const GgufSimd& simd = gguf_simd();
  const std::int64_t grain =
      std::max<std::int64_t>(1, kGrainWeights / std::max<std::int64_t>(1, in_features));
  at::parallel_for(0, out_features, grain, [&](std::int64_t begin, std::int64_t end) {
    const auto pass = static_cast<std::size_t>(std::min(rows, kRowPass));
    std::vector<float> scratch(pass * kGgufLinearOutputs * kGgufMaxLanes);
    for (auto o = static_cast<std::size_t>(begin); o < static_cast<std::size_t>(end);
         o += kGgufLinearOutputs) {
      const auto outputs = static_cast<int>(
          std::min<std::size_t>(kGgufLinearOutputs, static_cast<std::size_t>(end) - o));
      for (std::size_t r = 0; r < static_cast<std::size_t>(rows); r += pass) {
        const std::size_t count = std::min(pass, static_cast<std::size_t>(rows) - r);
        simd.linear(type, weights + o * row_bytes, row_bytes, in, outputs, x.data() + r * in, count,
                    y.data() + r * out + o, out, scratch.data());
      }
    }
  });
}

}  // namespace espalier
