// The body for AVX-512 (F, BW, DQ, VL); CMake compiles this file alone with those flags.
#if defined(__x86_64__)
#include <immintrin.h>

#include "espalier/kernels/gguf_quants/half_internal.h"
#include "espalier/kernels/gguf_quants/simd_internal.h"

#define ESPALIER_SIMD_AVX512 1

namespace espalier {
namespace gguf_avx512 {
namespace {

constexpr int kLanes = 16;
#include "espalier/kernels/gguf_quants/simd_body_internal.h"
#include "espalier/kernels/gguf_quants/simd_quantize_internal.h"

}  // namespace
}  // namespace gguf_avx512

const GgufSimd kGgufAvx512{"avx512", &gguf_avx512::dequantize_any, &gguf_avx512::linear,
                           &gguf_avx512::quantize_any};

}  // namespace espalier
#endif
