// Vectorised quantisers, bit-equal to quantize_reference. Included after simd_body_internal.h,
// under the same rules. Blocks that the vector code does not cover (1/d infinite, signed zeros as
// the minimum, two extremes of equal magnitude) are left to the caller's scalar code: rare, and
// easier to read there.
//
// Included more than once.

#define ESPALIER_INLINE __attribute__((always_inline)) inline

ESPALIER_INLINE Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
ESPALIER_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }

/// Truncation; for values that fit.
ESPALIER_INLINE Ints to_ints(Floats value) { return __builtin_convertvector(value, Ints); }

constexpr int kVectors = 32 / kLanes;

struct BlockRange {
  float low, high, magnitude;  // smallest, largest, largest absolute value (never -0)
  bool finite;
};

ESPALIER_INLINE BlockRange range_of(const float* x) {
  Floats low = load_floats(x), high = low;
  Ints magnitude = (Ints)low & 0x7fffffff;
  for (int v = 1; v < kVectors; ++v) {
    const Floats value = load_floats(x + v * kLanes);
    low = smaller(value, low);
    high = larger(value, high);
    const Ints bits = (Ints)value & 0x7fffffff;
    magnitude = bits > magnitude ? bits : magnitude;
  }
  float lows[kLanes], highs[kLanes];
  std::int32_t magnitudes[kLanes];
  store_floats(lows, low);
  store_floats(highs, high);
  __builtin_memcpy(magnitudes, &magnitude, sizeof(magnitude));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) {
      lows[i] = lows[i + width] < lows[i] ? lows[i + width] : lows[i];
      highs[i] = highs[i + width] > highs[i] ? highs[i + width] : highs[i];
      magnitudes[i] = magnitudes[i + width] > magnitudes[i] ? magnitudes[i + width] : magnitudes[i];
    }
  }
  return {lows[0], highs[0], bits_float(static_cast<std::uint32_t>(magnitudes[0])),
          magnitudes[0] < 0x7f800000};
}

ESPALIER_INLINE void put_half(Byte* out, float value) {
#ifdef __F16C__
  const auto bits = static_cast<std::uint16_t>(
      _mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT)));
#else
  const std::uint16_t bits = float_to_half(value);
#endif
  __builtin_memcpy(out, &bits, sizeof(bits));
}

/// 1/d, which the vector code needs finite: d is zero or not so small that its inverse overflows.
ESPALIER_INLINE bool invert(float d, float& inverse) {
  inverse = d == 0 ? 0.0f : 1.0f / d;
  return (float_bits(inverse) & 0x7fffffffu) < 0x7f800000u;
}

ESPALIER_INLINE bool fits_half(float value) { return value <= 65504.0f && value >= -65504.0f; }

ESPALIER_INLINE bool quantize_q8_0(const float* x, Byte* out) {
  const BlockRange range = range_of(x);
  const float d = range.magnitude / 127;
  float inverse;
  if (!range.finite || !fits_half(d) || !invert(d, inverse)) return false;
  const Floats factor = splat(inverse);
  std::int32_t q[32];
  for (int v = 0; v < kVectors; ++v) {
    const Floats scaled = load_floats(x + v * kLanes) * factor;
    const Floats magnitude = (Floats)((Ints)scaled & 0x7fffffff);
    const Ints whole = to_ints(magnitude);
    const Ints rounded = whole + to_ints(2.0f * (magnitude - to_floats(whole)));
    const Ints sign = (Ints)scaled >> 31;  // 0 or -1
    const Ints value = (rounded ^ sign) - sign;
    __builtin_memcpy(q + v * kLanes, &value, sizeof(value));
  }
  put_half(out, d);
  for (int i = 0; i < 32; ++i) out[2 + i] = static_cast<Byte>(q[i]);
  return true;
}

/// trunc((x - minimum) * factor + offset), at most 15, packed: element i with element i + 16.
ESPALIER_INLINE void pack_nibbles(const float* x, float minimum, float factor, float offset,
                                  Byte* out) {
  std::int32_t q[32];
  for (int v = 0; v < kVectors; ++v) {
    const Floats scaled = (load_floats(x + v * kLanes) - splat(minimum)) * splat(factor);
    Ints value = to_ints(scaled + splat(offset)) & 0xff;
    value = value < 15 ? value : Ints{} + 15;
    __builtin_memcpy(q + v * kLanes, &value, sizeof(value));
  }
  for (int i = 0; i < 16; ++i) out[i] = static_cast<Byte>(q[i] | (q[i + 16] << 4));
}

ESPALIER_INLINE bool quantize_q4_0(const float* x, Byte* out) {
  const BlockRange range = range_of(x);
  if (!range.finite || range.high == -range.low) return false;
  const float d = (range.high > -range.low ? range.high : range.low) / -8;
  float inverse;
  if (!fits_half(d) || !invert(d, inverse)) return false;
  put_half(out, d);
  pack_nibbles(x, 0.0f, inverse, 8.5f, out + 2);
  return true;
}

ESPALIER_INLINE bool quantize_q4_1(const float* x, Byte* out) {
  const BlockRange range = range_of(x);
  if (!range.finite || range.low == 0) return false;
  const float d = (range.high - range.low) / 15;
  float inverse;
  if (!fits_half(d) || !fits_half(range.low) || !invert(d, inverse)) return false;
  put_half(out, d);
  put_half(out + 2, range.low);
  pack_nibbles(x, range.low, inverse, 0.5f, out + 4);
  return true;
}

void encode_halves(const float* x, std::size_t count, Byte* out) {
  std::size_t i = 0;
#if defined(ESPALIER_SIMD_AVX512)
  for (; i + 16 <= count; i += 16) {
    _mm256_storeu_si256((__m256i*)(out + 2 * i),
                        _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(ESPALIER_SIMD_AVX2)
  for (; i + 8 <= count; i += 8) {
    _mm_storeu_si128((__m128i*)(out + 2 * i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (; i < count; ++i) put_half(out + 2 * i, x[i]);
}

void encode_bfloats(const float* x, std::size_t count, Byte* out) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t bits = float_to_bfloat(x[i]);
    __builtin_memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

/// See GgufSimd::quantize.
std::size_t quantize_any(GgufType type, const float* x, std::size_t blocks, Byte* out) {
  switch (type) {
    case GgufType::kF16:
      encode_halves(x, blocks, out);
      return blocks;
    case GgufType::kBF16:
      encode_bfloats(x, blocks, out);
      return blocks;
    case GgufType::kQ8_0:
      for (std::size_t n = 0; n < blocks; ++n) {
        if (!quantize_q8_0(x + 32 * n, out + 34 * n)) return n;
      }
      return blocks;
    case GgufType::kQ4_0:
      for (std::size_t n = 0; n < blocks; ++n) {
        if (!quantize_q4_0(x + 32 * n, out + 18 * n)) return n;
      }
      return blocks;
    case GgufType::kQ4_1:
      for (std::size_t n = 0; n < blocks; ++n) {
        if (!quantize_q4_1(x + 32 * n, out + 20 * n)) return n;
      }
      return blocks;
    default:
      return 0;
  }
}

#undef ESPALIER_INLINE
