// The body for AVX2, FMA and F16C; CMake compiles this file alone with those flags.
#if defined(__x86_64__)
#include <immintrin.h>

#include "espalier/kernels/gguf_quants/half_internal.h"
#include "espalier/kernels/gguf_quants/simd_internal.h"

#define ESPALIER_SIMD_AVX2 1

namespace espalier {
namespace gguf_avx2 {
namespace {

constexpr int kLanes = 8;
#include "espalier/kernels/gguf_quants/simd_body_internal.h"
#include "espalier/kernels/gguf_quants/simd_quantize_internal.h"

}  // namespace
}  // namespace gguf_avx2

const GgufSimd kGgufAvx2{"avx2", &gguf_avx2::dequantize_any, &gguf_avx2::linear,
                         &gguf_avx2::quantize_any};

}  // namespace espalier
#endif
