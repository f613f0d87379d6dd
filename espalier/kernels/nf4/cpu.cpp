// NF4 on the CPU. Dequantising looks 16 levels up with one permutation of a 512-bit register, or
// two nibbles at once in a table of 256 pairs. Built without contraction: scales of double
// quantisation are a product and a sum, each rounded, as where the format comes from.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "espalier/kernels/gguf_quants/half_internal.h"
#include "espalier/kernels/nf4/kernels_internal.h"
#include "espalier/kernels/nf4/levels.h"
#include "espalier/kernels/simd_internal.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define ESPALIER_NF4_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))
#endif

namespace espalier {
namespace {

constexpr float kSmallest = 1e-38f;  // of the divisor; blocks of zeros keep the level zero

/// Both levels of each byte, high nibble first.
const std::array<std::pair<float, float>, 256>& level_pairs() {
  static const auto table = [] {
    std::array<std::pair<float, float>, 256> pairs;
    for (std::size_t byte = 0; byte < 256; ++byte)
      pairs[byte] = {nf4_levels()[byte >> 4], nf4_levels()[byte & 15]};
    return pairs;
  }();
  return table;
}

float scale_of(const Nf4View& w, std::int64_t block) {
  if (w.scales != nullptr) return w.scales[block];
  const float product = w.map[w.nested_scales[block]] * w.nested_absmax[block / w.nested_block];
  return product + w.offset;
}

void store(float value, void* out, std::int64_t at, Nf4Output type) {
  if (type == Nf4Output::kFloat)
    static_cast<float*>(out)[at] = value;
  else
    static_cast<std::uint16_t*>(out)[at] =
        type == Nf4Output::kBFloat16 ? simd::to_bf16(value) : float_to_half(value);
}

/// Elements of one block: `count` of them from element `first` (of the matrix) on.
void scalar_run(const std::uint8_t* packed, std::int64_t first, std::int64_t count, float scale,
                void* out, std::int64_t at, Nf4Output type) {
  const auto& pairs = level_pairs();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t element = first + i;
    const auto& pair = pairs[packed[element / 2]];
    store((element % 2 == 0 ? pair.first : pair.second) * scale, out, at + i, type);
  }
}

#if defined(__x86_64__)
bool has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl");
  return has;
}

/// `count` elements, a multiple of 16, from an even element on.
ESPALIER_NF4_AVX512 void avx512_run(const std::uint8_t* bytes, std::int64_t count, float scale,
                                    void* out, std::int64_t at, Nf4Output type) {
  const __m512 levels = _mm512_loadu_ps(nf4_levels().data());
  const __m512 scales = _mm512_set1_ps(scale);
  const __m128i twice = _mm_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  const __m512i shifts = _mm512_setr_epi32(4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0);
  for (std::int64_t i = 0; i < count; i += 16) {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes + i / 2));
    const __m512i lanes = _mm512_cvtepu8_epi32(_mm_shuffle_epi8(eight, twice));
    // The permutation reads the low four bits of an index only, so nothing needs masking.
    const __m512i index = _mm512_srlv_epi32(lanes, shifts);
    const __m512 value = _mm512_mul_ps(_mm512_permutexvar_ps(index, levels), scales);
    if (type == Nf4Output::kFloat) {
      _mm512_storeu_ps(static_cast<float*>(out) + at + i, value);
    } else if (type == Nf4Output::kHalf) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<std::uint16_t*>(out) + at + i),
                          _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    } else {
      const __m512i bits = _mm512_castps_si512(value);
      const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
      const __m512i rounded =
          _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(static_cast<std::uint16_t*>(out) + at + i),
                          _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
    }
  }
}
#endif

/// Largest magnitude; NaN when any value is NaN.
ESPALIER_SIMD float largest_magnitude(const float* x, std::int64_t count) {
  float largest = 0;
  bool nan = false;
  for (std::int64_t i = 0; i < count; ++i) {
    const float magnitude = std::fabs(x[i]);
    largest = magnitude > largest ? magnitude : largest;
    nan = nan || magnitude != magnitude;
  }
  return nan ? std::numeric_limits<float>::quiet_NaN() : largest;
}

/// Number of midpoints strictly below each value of x * factor (or x / divisor).
ESPALIER_SIMD void count_midpoints(const float* x, std::int64_t count, float divisor, bool divide,
                                   const float* midpoints, std::uint8_t* q) {
  const float factor = 1.0f / divisor;
  for (std::int64_t i = 0; i < count; ++i) {
    float value = divide ? x[i] / divisor : x[i] * factor;
    value = std::min(std::max(value, -1.0f), 1.0f);
    std::int32_t below = 0;
    for (int m = 0; m < 15; ++m) below += midpoints[m] < value ? 1 : 0;
    q[i] = static_cast<std::uint8_t>(below);
  }
}

const std::array<float, 15>& midpoints() {
  static const auto table = [] {
    std::array<float, 15> out;
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = (nf4_levels()[i] + nf4_levels()[i + 1]) / 2.0f;
    return out;
  }();
  return table;
}

/// bitsandbytes looks scales up in a table of 65536 entries over [-1, 1] on the CPU, which moves
/// them to the nearest of its grid first. Bit-equality needs the same arithmetic, in float32.
float on_grid(float x) {
  const auto entry = static_cast<std::int32_t>((x + 1.0f) * 32767.5f + 0.5f);
  return static_cast<float>(std::clamp(entry, 0, 65535)) / 32767.5f - 1.0f;
}

}  // namespace

void nf4_dequantize_cpu(const Nf4View& weight, std::int64_t begin, std::int64_t end, void* out,
                        Nf4Output type) {
  for (std::int64_t first = begin; first < end;) {
    const std::int64_t block = first / weight.block;
    const std::int64_t last = std::min(end, (block + 1) * weight.block);
    const float scale = scale_of(weight, block);
    std::int64_t done = 0;
#if defined(__x86_64__)
    if (first % 2 == 0 && has_avx512()) {
      done = (last - first) / 16 * 16;
      avx512_run(weight.packed + first / 2, done, scale, out, first - begin, type);
    }
#endif
    scalar_run(weight.packed, first + done, last - first - done, scale, out, first + done - begin,
               type);
    first = last;
  }
}

bool nf4_quantize_block_cpu(const float* x, std::int64_t count, bool whole, float* scale,
                            std::uint8_t* q) {
  const float largest = largest_magnitude(x, count);
  if (!(largest <= std::numeric_limits<float>::max())) return false;
  const float divisor = std::max(largest, kSmallest);
  *scale = whole ? largest : divisor;
  count_midpoints(x, count, divisor, !whole, midpoints().data(), q);
  return true;
}

void nf4_quantize_scales_cpu(const float* x, std::int64_t count, const float* map, float* scale,
                             std::uint8_t* q) {
  *scale = largest_magnitude(x, count);
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = on_grid(*scale > 0 ? x[i] / *scale : 0.0f);
    const float* above = std::upper_bound(map, map + 256, value);
    std::int64_t at = above == map ? 0 : above - map - 1;
    // The nearer neighbour; the lower one when both are equally near.
    if (at < 255 && std::fabs(value - map[at + 1]) < std::fabs(value - map[at])) ++at;
    q[i] = static_cast<std::uint8_t>(at);
  }
}

}  // namespace espalier
