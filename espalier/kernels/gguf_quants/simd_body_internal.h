// Block decoders, dequantisation and dot products in GCC vector extensions. Included by
// simd_<set>.cpp inside a namespace of its own, with kLanes defined; each of those files is
// compiled for its instruction set and must use nothing of the standard library, or the linker
// could merge such code into programs run elsewhere.
//
// A decoder calls emit(i, values) for every kLanes elements of a block, in order, with exactly the
// arithmetic of reference.cpp (the files are compiled without floating-point contraction);
// dequantising stores what is emitted.
//
// Included more than once.

#define ESPALIER_INLINE __attribute__((always_inline)) inline

constexpr int kMaxOutputs = kGgufLinearOutputs;
constexpr std::size_t kChunk = 512;  // columns: four unpacked rows take 8 KiB

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef std::uint8_t Bytes8 __attribute__((vector_size(kLanes)));
typedef std::int8_t SignedBytes8 __attribute__((vector_size(kLanes)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * kLanes)));
using Byte = std::uint8_t;

ESPALIER_INLINE Floats splat(float value) { return value - Floats{}; }

ESPALIER_INLINE Floats load_floats(const float* from) {
  Floats value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

ESPALIER_INLINE void store_floats(float* to, Floats value) {
  __builtin_memcpy(to, &value, sizeof(value));
}

// GCC 12 makes scalar code of a conversion from bytes to 32-bit lanes, so these two are spelled
// out.
ESPALIER_INLINE Ints load_bytes(const Byte* from) {
#if defined(ESPALIER_SIMD_AVX512)
  return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)from));
#elif defined(ESPALIER_SIMD_AVX2)
  return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from));
#else
  Bytes8 value;
  __builtin_memcpy(&value, from, sizeof(value));
  return __builtin_convertvector(value, Ints);
#endif
}

ESPALIER_INLINE Ints load_signed_bytes(const Byte* from) {
#if defined(ESPALIER_SIMD_AVX512)
  return (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from));
#elif defined(ESPALIER_SIMD_AVX2)
  return (Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from));
#else
  SignedBytes8 value;
  __builtin_memcpy(&value, from, sizeof(value));
  return __builtin_convertvector(value, Ints);
#endif
}

ESPALIER_INLINE Floats to_floats(Ints value) { return __builtin_convertvector(value, Floats); }

ESPALIER_INLINE std::uint16_t u16_at(const Byte* bytes) {
  std::uint16_t value;
  __builtin_memcpy(&value, bytes, sizeof(value));
  return value;
}

ESPALIER_INLINE float half_at(const Byte* bytes) {
#ifdef __F16C__
  return _cvtsh_ss(u16_at(bytes));
#else
  return half_to_float(u16_at(bytes));
#endif
}

/// The float16 at `bytes` in every lane.
ESPALIER_INLINE Floats splat_half(const Byte* bytes) {
#if defined(ESPALIER_SIMD_AVX512)
  // One shuffle less than converting first: shuffles are what products of one row wait for.
  return (Floats)_mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(u16_at(bytes))));
#else
  return splat(half_at(bytes));
#endif
}

/// kLanes float16 values at `bytes`.
ESPALIER_INLINE Floats load_halves(const Byte* bytes) {
#if defined(ESPALIER_SIMD_AVX512)
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)bytes));
#elif defined(ESPALIER_SIMD_AVX2)
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)bytes));
#else
  Floats value;
  for (int i = 0; i < kLanes; ++i) value[i] = half_to_float(u16_at(bytes + 2 * i));
  return value;
#endif
}

ESPALIER_INLINE Floats load_bfloats(const Byte* bytes) {
  Halves value;
  __builtin_memcpy(&value, bytes, sizeof(value));
  const Ints bits = __builtin_convertvector(value, Ints) << 16;
  return (Floats)bits;
}

ESPALIER_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(ESPALIER_SIMD_AVX512)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(ESPALIER_SIMD_AVX2)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

/// Bit `first + lane` of `bits` as 0 or 16 in each lane.
ESPALIER_INLINE Ints fifth_bits(std::uint32_t bits, int first) {
  Ints lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  const Ints all = static_cast<std::int32_t>(bits >> first) - Ints{};
  return ((all >> lane) & 1) << 4;
}

// One struct per format: elements and bytes of a block, and decode().

struct F32Block {
  static constexpr int kElements = kLanes, kBytes = 4 * kLanes;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    Floats value;
    __builtin_memcpy(&value, b, sizeof(value));
    emit(0, value);
  }
};

struct F16Block {
  static constexpr int kElements = kLanes, kBytes = 2 * kLanes;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    emit(0, load_halves(b));
  }
};

struct BF16Block {
  static constexpr int kElements = kLanes, kBytes = 2 * kLanes;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    emit(0, load_bfloats(b));
  }
};

/// Low nibbles of 16 bytes, then high nibbles: elements 0..15 and 16..31.
template <class Each>
ESPALIER_INLINE void each_nibble(const Byte* q, Each each) {
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 16; i += kLanes) {
      const Ints packed = load_bytes(q + i);
      each(16 * half + i, half == 0 ? packed & 15 : packed >> 4);
    }
  }
}

#if defined(ESPALIER_SIMD_AVX512)
/// 0, 1, .. 15.
ESPALIER_INLINE Floats levels() {
  return Floats{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}

/// The 16 values that a block's nibbles stand for, looked up by one shuffle, which itself ignores
/// all but the low four bits of an index.
template <class Emit>
ESPALIER_INLINE void look_up_nibbles(const Byte* q, Floats values, Emit emit) {
  const auto packed = (__m512i)load_bytes(q);
  emit(0, (Floats)_mm512_permutexvar_ps(packed, (__m512)values));
  emit(16, (Floats)_mm512_permutexvar_ps(_mm512_srli_epi32(packed, 4), (__m512)values));
}
#endif

struct Q4_0Block {
  static constexpr int kElements = 32, kBytes = 18;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const Floats d = splat_half(b);
#if defined(ESPALIER_SIMD_AVX512)
    return look_up_nibbles(b + 2, d * (levels() - 8.0f), emit);
#else
    each_nibble(
        b + 2, [&](int i, Ints q)
                   __attribute__((always_inline)) { emit(i, d * to_floats(q - 8)); });
#endif
  }
};

struct Q4_1Block {
  static constexpr int kElements = 32, kBytes = 20;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
#if defined(ESPALIER_SIMD_AVX512)
    int both;
    __builtin_memcpy(&both, b, sizeof(both));
    const __m512 pairs = _mm512_cvtph_ps(_mm256_set1_epi32(both));  // d, m, d, m, ..
    const auto scale = (Floats)_mm512_moveldup_ps(pairs), least = (Floats)_mm512_movehdup_ps(pairs);
    return look_up_nibbles(b + 4, scale * levels() + least, emit);
#else
    const Floats d = splat(half_at(b)), m = splat(half_at(b + 2));
    each_nibble(
        b + 4, [&](int i, Ints q)
                   __attribute__((always_inline)) { emit(i, d * to_floats(q) + m); });
#endif
  }
};

ESPALIER_INLINE std::uint32_t u32_at(const Byte* bytes) {
  std::uint32_t value;
  __builtin_memcpy(&value, bytes, sizeof(value));
  return value;
}

struct Q5_0Block {
  static constexpr int kElements = 32, kBytes = 22;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const Floats d = splat(half_at(b));
    const std::uint32_t high = u32_at(b + 2);
    each_nibble(
        b + 6, [&](int i, Ints q) __attribute__((always_inline)) {
          emit(i, d * to_floats((q | fifth_bits(high, i)) - 16));
        });
  }
};

struct Q5_1Block {
  static constexpr int kElements = 32, kBytes = 24;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const Floats d = splat(half_at(b)), m = splat(half_at(b + 2));
    const std::uint32_t high = u32_at(b + 4);
    each_nibble(
        b + 8, [&](int i, Ints q) __attribute__((always_inline)) {
          emit(i, d * to_floats(q | fifth_bits(high, i)) + m);
        });
  }
};

struct Q8_0Block {
  static constexpr int kElements = 32, kBytes = 34;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const Floats d = splat_half(b);
    for (int i = 0; i < 32; i += kLanes) emit(i, to_floats(load_signed_bytes(b + 2 + i)) * d);
  }
};

/// Scales d*sc and minima dmin*m of the eight sub-blocks of Q4_K and Q5_K.
struct KScales {
  float scale[8], minimum[8];
};

ESPALIER_INLINE KScales k_scales(const Byte* b) {
  const float d = half_at(b), dmin = half_at(b + 2);
  const Byte* s = b + 4;
  KScales result;
  for (int j = 0; j < 4; ++j) {
    result.scale[j] = d * static_cast<float>(s[j] & 63);
    result.minimum[j] = dmin * static_cast<float>(s[j + 4] & 63);
    result.scale[j + 4] = d * static_cast<float>((s[j + 8] & 15) | ((s[j] >> 6) << 4));
    result.minimum[j + 4] = dmin * static_cast<float>((s[j + 8] >> 4) | ((s[j + 4] >> 6) << 4));
  }
  return result;
}

struct Q4_KBlock {
  static constexpr int kElements = 256, kBytes = 144;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const KScales k = k_scales(b);
    const Byte* q = b + 16;
    for (int j = 0; j < 8; ++j) {
      const Floats scale = splat(k.scale[j]), minimum = splat(k.minimum[j]);
      for (int i = 0; i < 32; i += kLanes) {
        const Ints packed = load_bytes(q + 32 * (j / 2) + i);
        emit(32 * j + i, scale * to_floats((j & 1) == 0 ? packed & 15 : packed >> 4) - minimum);
      }
    }
  }
};

struct Q5_KBlock {
  static constexpr int kElements = 256, kBytes = 176;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const KScales k = k_scales(b);
    const Byte* high = b + 16;
    const Byte* q = b + 48;
    for (int j = 0; j < 8; ++j) {
      const Floats scale = splat(k.scale[j]), minimum = splat(k.minimum[j]);
      for (int i = 0; i < 32; i += kLanes) {
        const Ints packed = load_bytes(q + 32 * (j / 2) + i);
        const Ints fifth = ((load_bytes(high + i) >> j) & 1) << 4;
        emit(32 * j + i,
             scale * to_floats(((j & 1) == 0 ? packed & 15 : packed >> 4) | fifth) - minimum);
      }
    }
  }
};

struct Q6_KBlock {
  static constexpr int kElements = 256, kBytes = 210;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const float d = half_at(b + 208);
    for (int h = 0; h < 2; ++h) {
      for (int k = 0; k < 4; ++k) {
        for (int i = 0; i < 32; i += kLanes) {
          const Byte scale_byte = b[192 + 8 * h + 2 * k + (i >= 16 ? 1 : 0)];
          const Floats scale = splat(d * static_cast<float>(static_cast<std::int8_t>(scale_byte)));
          const Ints packed = load_bytes(b + 64 * h + 32 * (k & 1) + i);
          const Ints low = k < 2 ? packed & 15 : packed >> 4;
          const Ints high = (load_bytes(b + 128 + 32 * h + i) >> (2 * k)) & 3;
          emit(128 * h + 32 * k + i, scale * to_floats((low | (high << 4)) - 32));
        }
      }
    }
  }
};

/// The last elements of F32, F16 and BF16, whose block is one element.
ESPALIER_INLINE float element_of(GgufType type, const Byte* b) {
  if (type == GgufType::kF16) return half_at(b);
  if (type == GgufType::kBF16) return bfloat_to_float(u16_at(b));
  float value;
  __builtin_memcpy(&value, b, sizeof(value));
  return value;
}

template <class Block>
void dequantize_blocks(const Byte* bytes, std::size_t blocks, float* out) {
  for (std::size_t n = 0; n < blocks; ++n) {
    Block::decode(
        bytes, [&](int i, Floats value)
                   __attribute__((always_inline)) { store_floats(out + i, value); });
    bytes += Block::kBytes;
    out += Block::kElements;
  }
}

template <class Block>
void dequantize_elements(GgufType type, const Byte* bytes, std::size_t count, float* out) {
  const std::size_t whole = count / kLanes;
  dequantize_blocks<Block>(bytes, whole, out);
  constexpr std::size_t kSize = Block::kBytes / kLanes;
  for (std::size_t i = whole * kLanes; i < count; ++i) out[i] = element_of(type, bytes + i * kSize);
}

void dequantize_any(GgufType type, const Byte* bytes, std::size_t blocks, float* out) {
  switch (type) {
    case GgufType::kF32:
      return dequantize_elements<F32Block>(type, bytes, blocks, out);
    case GgufType::kF16:
      return dequantize_elements<F16Block>(type, bytes, blocks, out);
    case GgufType::kBF16:
      return dequantize_elements<BF16Block>(type, bytes, blocks, out);
    case GgufType::kQ4_0:
      return dequantize_blocks<Q4_0Block>(bytes, blocks, out);
    case GgufType::kQ4_1:
      return dequantize_blocks<Q4_1Block>(bytes, blocks, out);
    case GgufType::kQ5_0:
      return dequantize_blocks<Q5_0Block>(bytes, blocks, out);
    case GgufType::kQ5_1:
      return dequantize_blocks<Q5_1Block>(bytes, blocks, out);
    case GgufType::kQ8_0:
      return dequantize_blocks<Q8_0Block>(bytes, blocks, out);
    case GgufType::kQ4_K:
      return dequantize_blocks<Q4_KBlock>(bytes, blocks, out);
    case GgufType::kQ5_K:
      return dequantize_blocks<Q5_KBlock>(bytes, blocks, out);
    case GgufType::kQ6_K:
      return dequantize_blocks<Q6_KBlock>(bytes, blocks, out);
  }
}

ESPALIER_INLINE std::size_t block_elements(GgufType type) {
  switch (type) {
    case GgufType::kF32:
    case GgufType::kF16:
    case GgufType::kBF16:
      return 1;
    case GgufType::kQ4_K:
    case GgufType::kQ5_K:
    case GgufType::kQ6_K:
      return 256;
    default:
      return 32;
  }
}

/// Halves the vector until one number is left: a fixed order, whatever the thread count.
ESPALIER_INLINE float sum_of(Floats value) {
  float part[kLanes];
  store_floats(part, value);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  }
  return part[0];
}

/// sums += products of kOutputs weight rows (kChunk apart) and kRows rows of x over `count`
/// elements. One vector sum per pair, so the order of additions for a pair depends on nothing but
/// the chunks.
template <int kOutputs, int kRows>
void add_products(const float* weights, std::size_t count, const float* x, std::size_t x_stride,
                  float* sums) {
  Floats total[kOutputs][kRows];
  for (int o = 0; o < kOutputs; ++o) {
    for (int r = 0; r < kRows; ++r)
      total[o][r] = load_floats(sums + (r * kMaxOutputs + o) * kLanes);
  }
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Floats inputs[kRows];
    for (int r = 0; r < kRows; ++r)
      inputs[r] = load_floats(x + static_cast<std::size_t>(r) * x_stride + i);
    for (int o = 0; o < kOutputs; ++o) {
      const Floats w = load_floats(weights + static_cast<std::size_t>(o) * kChunk + i);
      for (int r = 0; r < kRows; ++r) total[o][r] = multiply_add(w, inputs[r], total[o][r]);
    }
  }
  for (int o = 0; o < kOutputs; ++o) {
    for (int r = 0; r < kRows; ++r)
      store_floats(sums + (r * kMaxOutputs + o) * kLanes, total[o][r]);
  }
  for (; i < count; ++i) {  // only types whose block is one element come here
    for (int o = 0; o < kOutputs; ++o) {
      for (int r = 0; r < kRows; ++r) {
        sums[(r * kMaxOutputs + o) * kLanes] += weights[static_cast<std::size_t>(o) * kChunk + i] *
                                                x[static_cast<std::size_t>(r) * x_stride + i];
      }
    }
  }
}

using AddProducts = void (*)(const float*, std::size_t, const float*, std::size_t, float*);
template <int kOutputs>
constexpr AddProducts kAddProducts[5] = {nullptr, &add_products<kOutputs, 1>,
                                         &add_products<kOutputs, 2>, &add_products<kOutputs, 3>,
                                         &add_products<kOutputs, 4>};

/// Asks for the same columns of the rows that come next: four rows are read side by side in short
/// pieces, a pattern the hardware does not foresee (measured: three times slower without).
ESPALIER_INLINE void prefetch(const Byte* from, std::size_t distance, std::size_t size) {
  const auto address = reinterpret_cast<std::uintptr_t>(from) + distance;
  for (std::size_t at = 0; at < size; at += 64)
    __builtin_prefetch(reinterpret_cast<const void*>(address + at));
}

/// sums = products of kOutputs weight rows and one row of x, never unpacked into memory. The order
/// of additions is that of add_products: the same bits.
template <class Block, int kOutputs>
void row_products(const Byte* weights, std::size_t row_bytes, std::size_t in, const float* x,
                  float* sums) {
  Floats total[kOutputs] = {};
  constexpr std::size_t kBlocks = kChunk / Block::kElements;
  const std::size_t blocks = in / Block::kElements;
  for (std::size_t first = 0; first < blocks; first += kBlocks) {
    const std::size_t count = blocks - first < kBlocks ? blocks - first : kBlocks;
    const Byte* part = weights + first * Block::kBytes;
    const float* inputs = x + first * Block::kElements;
    for (int o = 0; o < kOutputs; ++o) {
      prefetch(part + static_cast<std::size_t>(o) * row_bytes, row_bytes * kMaxOutputs,
               count * Block::kBytes);
    }
    for (std::size_t n = 0; n < count; ++n) {
      for (int o = 0; o < kOutputs; ++o) {
        Block::decode(
            part + static_cast<std::size_t>(o) * row_bytes + n * Block::kBytes,
            [&](int i, Floats value) __attribute__((always_inline)) {
              total[o] =
                  multiply_add(value, load_floats(inputs + n * Block::kElements + i), total[o]);
            });
      }
    }
  }
  for (int o = 0; o < kOutputs; ++o) store_floats(sums + o * kLanes, total[o]);
}

template <class Block>
void one_row(const Byte* weights, std::size_t row_bytes, std::size_t in, int outputs,
             const float* x, float* sums) {
  if (outputs == kMaxOutputs)
    return row_products<Block, kMaxOutputs>(weights, row_bytes, in, x, sums);
  for (int o = 0; o < outputs; ++o) {
    row_products<Block, 1>(weights + static_cast<std::size_t>(o) * row_bytes, row_bytes, in, x,
                           sums + o * kLanes);
  }
}

/// False for rows that are not whole vectors long.
ESPALIER_INLINE bool one_row_any(GgufType type, const Byte* weights, std::size_t row_bytes,
                                 std::size_t in, int outputs, const float* x, float* sums) {
  if (in % kLanes != 0) return false;
  const auto run = [&]<class Block>(Block) {
    one_row<Block>(weights, row_bytes, in, outputs, x, sums);
    return true;
  };
  switch (type) {
    case GgufType::kF32:
      return run(F32Block{});
    case GgufType::kF16:
      return run(F16Block{});
    case GgufType::kBF16:
      return run(BF16Block{});
    case GgufType::kQ4_0:
      return run(Q4_0Block{});
    case GgufType::kQ4_1:
      return run(Q4_1Block{});
    case GgufType::kQ5_0:
      return run(Q5_0Block{});
    case GgufType::kQ5_1:
      return run(Q5_1Block{});
    case GgufType::kQ8_0:
      return run(Q8_0Block{});
    case GgufType::kQ4_K:
      return run(Q4_KBlock{});
    case GgufType::kQ5_K:
      return run(Q5_KBlock{});
    case GgufType::kQ6_K:
      return run(Q6_KBlock{});
  }
  return false;
}

/// See GgufSimd::linear. One row: weights go from registers into its products. More: weights are
/// unpacked kChunk columns at a time into a buffer in the first-level cache, where all rows of x
/// use them; the sums wait in `scratch` meanwhile.
void linear(GgufType type, const Byte* weights, std::size_t row_bytes, std::size_t in, int outputs,
            const float* x, std::size_t rows, float* y, std::size_t y_stride, float* scratch) {
  if (rows == 1 && one_row_any(type, weights, row_bytes, in, outputs, x, scratch)) {
    for (int o = 0; o < outputs; ++o)
      y[static_cast<std::size_t>(o)] = sum_of(load_floats(scratch + o * kLanes));
    return;
  }
  alignas(64) float chunk[kMaxOutputs * kChunk];
  const std::size_t block = block_elements(type),
                    block_size = row_bytes * block / (in == 0 ? 1 : in);
  for (std::size_t i = 0; i < rows * kMaxOutputs * kLanes; ++i) scratch[i] = 0;
  for (std::size_t begin = 0; begin < in; begin += kChunk) {
    const std::size_t count = in - begin < kChunk ? in - begin : kChunk;
    for (int o = 0; o < outputs; ++o) {
      const Byte* part =
          weights + static_cast<std::size_t>(o) * row_bytes + begin / block * block_size;
      prefetch(part, row_bytes * kMaxOutputs, count / block * block_size);
      dequantize_any(type, part, count / block, chunk + static_cast<std::size_t>(o) * kChunk);
    }
    for (std::size_t r = 0; r < rows; r += 4) {
      const std::size_t group = rows - r < 4 ? rows - r : 4;
      float* sums = scratch + r * kMaxOutputs * kLanes;
      if (outputs == kMaxOutputs) {
        kAddProducts<kMaxOutputs>[group](chunk, count, x + r * in + begin, in, sums);
        continue;
      }
      for (int o = 0; o < outputs; ++o) {
        kAddProducts<1>[group](chunk + static_cast<std::size_t>(o) * kChunk, count,
                               x + r * in + begin, in, sums + o * kLanes);
      }
    }
  }
  for (std::size_t r = 0; r < rows; ++r) {
    for (int o = 0; o < outputs; ++o) {
      const float* sums = scratch + (r * kMaxOutputs + static_cast<std::size_t>(o)) * kLanes;
      y[r * y_stride + static_cast<std::size_t>(o)] = sum_of(load_floats(sums));
    }
  }
}

#undef ESPALIER_INLINE
