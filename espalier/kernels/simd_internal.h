// Loops that the compiler vectorises for the CPU it finds at run time. Internal.
//
// A function marked ESPALIER_SIMD is compiled for AVX-512, AVX2 and the baseline, and the loader
// picks one. Helpers it calls must be ESPALIER_INLINE, so that they become part of each version.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
// The sanitizer's run-time is not ready when the loader resolves the versions.
#define ESPALIER_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ESPALIER_SIMD
#endif
#define ESPALIER_INLINE [[gnu::always_inline]] inline

namespace espalier::simd {

/// Partial sums of reductions: as many as one 512-bit register holds, on every machine, so that the
/// order of additions (and hence the result) is the same everywhere.
constexpr std::int64_t kLanes = 16;

/// e^x to 2 units in the last place where the result is a normal float; 0 below x = -86.6, infinity
/// above 88.73. NaN stays NaN.
ESPALIER_INLINE float exp(float x) {
  constexpr float kLog2e = 1.44269504088896341f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = std::min(std::max(x, -87.0f), 89.0f);
  const float shifted = clamped * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  // Minimax polynomial of Cephes' expf on [-ln2/2, ln2/2].
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^(n-1), then twice: 2^128 itself is not a float, though p * 2^128 may be.
  const auto bits =
      (std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kRound) + 126) << 23;
  const float result = p * std::bit_cast<float>(bits) * 2.0f;
  return x < -86.6f ? 0.0f : (x == x ? result : x);
}

ESPALIER_INLINE float silu(float x) { return x / (1.0f + exp(-x)); }

/// bfloat16 as its 16 bits; conversion rounds to nearest even, NaN stays NaN.
ESPALIER_INLINE float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}
ESPALIER_INLINE std::uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<std::uint16_t>(x == x ? rounded : 0x7fc0u);
}

/// Sum of the 16 partial sums, as a tree.
ESPALIER_INLINE float sum_lanes(const float* lanes) {
  float s[kLanes];
  for (std::int64_t i = 0; i < kLanes; ++i) s[i] = lanes[i];
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::int64_t i = 0; i < width; ++i) s[i] += s[i + width];
  }
  return s[0];
}

}  // namespace espalier::simd
