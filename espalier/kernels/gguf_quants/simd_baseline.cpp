// The body for the baseline instruction set of the build: what every processor can run.
#include "espalier/kernels/gguf_quants/half_internal.h"
#include "espalier/kernels/gguf_quants/simd_internal.h"

namespace espalier {
namespace gguf_baseline {
namespace {

constexpr int kLanes = 4;
#include "espalier/kernels/gguf_quants/simd_body_internal.h"
#include "espalier/kernels/gguf_quants/simd_quantize_internal.h"

}  // namespace
}  // namespace gguf_baseline

const GgufSimd kGgufBaseline{"baseline", &gguf_baseline::dequantize_any, &gguf_baseline::linear,
                             &gguf_baseline::quantize_any};

}  // namespace espalier
