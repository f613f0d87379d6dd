// Block decoders, dequantisation and dot products in GCC vector extensions. Included by simd_<set>.cpp inside a
// namespace of its own, with kLanes defined; each of those files is compiled for its instruction set and must use
// nothing of the standard library, or the linker could merge such code into programs run elsewhere.
//
// A decoder calls emit(i, values) for every kLanes elements of a block, in order, with exactly the arithmetic of
// reference.cpp (the files are compiled without floating-point contraction), so dequantising is emit = store and a dot
// product is emit = multiply-add: weights go from packed bytes to the sum without passing through memory.

#define ESPALIER_INLINE __attribute__((always_inline)) inline

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

ESPALIER_INLINE void store_floats(float* to, Floats value) { __builtin_memcpy(to, &value, sizeof(value)); }

ESPALIER_INLINE Ints load_bytes(const Byte* from) {
  Bytes8 value;
  __builtin_memcpy(&value, from, sizeof(value));
  return __builtin_convertvector(value, Ints);
}

ESPALIER_INLINE Ints load_signed_bytes(const Byte* from) {
  SignedBytes8 value;
  __builtin_memcpy(&value, from, sizeof(value));
  return __builtin_convertvector(value, Ints);
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
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) { emit(0, load_halves(b)); }
};

struct BF16Block {
  static constexpr int kElements = kLanes, kBytes = 2 * kLanes;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) { emit(0, load_bfloats(b)); }
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

struct Q4_0Block {
  static constexpr int kElements = 32, kBytes = 18;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const Floats d = splat(half_at(b));
    each_nibble(b + 2, [&](int i, Ints q) __attribute__((always_inline)) { emit(i, d * to_floats(q - 8)); });
  }
};

struct Q4_1Block {
  static constexpr int kElements = 32, kBytes = 20;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const Floats d = splat(half_at(b)), m = splat(half_at(b + 2));
    each_nibble(b + 4, [&](int i, Ints q) __attribute__((always_inline)) { emit(i, d * to_floats(q) + m); });
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
    each_nibble(b + 6, [&](int i, Ints q) __attribute__((always_inline)) {
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
    each_nibble(b + 8, [&](int i, Ints q) __attribute__((always_inline)) {
      emit(i, d * to_floats(q | fifth_bits(high, i)) + m);
    });
  }
};

struct Q8_0Block {
  static constexpr int kElements = 32, kBytes = 34;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    const Floats d = splat(half_at(b));
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
        emit(32 * j + i, scale * to_floats(((j & 1) == 0 ? packed & 15 : packed >> 4) | fifth) - minimum);
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
    Block::decode(bytes, [&](int i, Floats value) __attribute__((always_inline)) { store_floats(out + i, value); });
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
    case GgufType::kF32: return dequantize_elements<F32Block>(type, bytes, blocks, out);
    case GgufType::kF16: return dequantize_elements<F16Block>(type, bytes, blocks, out);
    case GgufType::kBF16: return dequantize_elements<BF16Block>(type, bytes, blocks, out);
    case GgufType::kQ4_0: return dequantize_blocks<Q4_0Block>(bytes, blocks, out);
    case GgufType::kQ4_1: return dequantize_blocks<Q4_1Block>(bytes, blocks, out);
    case GgufType::kQ5_0: return dequantize_blocks<Q5_0Block>(bytes, blocks, out);
    case GgufType::kQ5_1: return dequantize_blocks<Q5_1Block>(bytes, blocks, out);
    case GgufType::kQ8_0: return dequantize_blocks<Q8_0Block>(bytes, blocks, out);
    case GgufType::kQ4_K: return dequantize_blocks<Q4_KBlock>(bytes, blocks, out);
    case GgufType::kQ5_K: return dequantize_blocks<Q5_KBlock>(bytes, blocks, out);
    case GgufType::kQ6_K: return dequantize_blocks<Q6_KBlock>(bytes, blocks, out);
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

/// One weight row against kRows rows of x. Several independent sums per row hide the latency of multiply-add.
template <class Block, int kRows>
ESPALIER_INLINE void dot_rows(const Byte* bytes, std::size_t blocks, const float* x, std::size_t x_stride, float* sums) {
  constexpr int kChains = kRows == 1 ? 4 : 2;
  Floats total[kRows][kChains] = {};
  for (std::size_t n = 0; n < blocks; ++n) {
    Block::decode(bytes, [&](int i, Floats w) __attribute__((always_inline)) {
      for (int r = 0; r < kRows; ++r) {
        Floats& sum = total[r][(i / kLanes) % kChains];
        sum = multiply_add(w, load_floats(x + static_cast<std::size_t>(r) * x_stride + i), sum);
      }
    });
    bytes += Block::kBytes;
    x += Block::kElements;
  }
  for (int r = 0; r < kRows; ++r) {
    Floats sum = total[r][0];
    for (int c = 1; c < kChains; ++c) sum += total[r][c];
    sums[r] = sum_of(sum);
  }
}

template <class Block>
void dot_blocks(const Byte* bytes, std::size_t blocks, const float* x, std::size_t x_stride, int rows, float* sums) {
  switch (rows) {
    case 1: return dot_rows<Block, 1>(bytes, blocks, x, x_stride, sums);
    case 2: return dot_rows<Block, 2>(bytes, blocks, x, x_stride, sums);
    case 3: return dot_rows<Block, 3>(bytes, blocks, x, x_stride, sums);
    default: return dot_rows<Block, 4>(bytes, blocks, x, x_stride, sums);
  }
}

/// Four vectors a step, so that the loop over F32, F16 and BF16 has independent chains as the block formats do.
template <class Block>
struct FourBlocks {
  static constexpr int kElements = 4 * Block::kElements, kBytes = 4 * Block::kBytes;
  template <class Emit>
  static ESPALIER_INLINE void decode(const Byte* b, Emit emit) {
    for (int k = 0; k < 4; ++k) {
      Block::decode(b + k * Block::kBytes, [&](int, Floats value) __attribute__((always_inline)) {
        emit(k * Block::kElements, value);
      });
    }
  }
};

template <class Block>
void dot_elements(GgufType type, const Byte* bytes, std::size_t count, const float* x, std::size_t x_stride, int rows,
                  float* sums) {
  using Four = FourBlocks<Block>;
  const std::size_t whole = count / Four::kElements;
  dot_blocks<Four>(bytes, whole, x, x_stride, rows, sums);
  constexpr std::size_t kSize = Block::kBytes / kLanes;
  for (std::size_t i = whole * Four::kElements; i < count; ++i) {
    const float w = element_of(type, bytes + i * kSize);
    for (int r = 0; r < rows; ++r) sums[r] += w * x[static_cast<std::size_t>(r) * x_stride + i];
  }
}

void dot_any(GgufType type, const Byte* bytes, std::size_t blocks, const float* x, std::size_t x_stride, int rows,
             float* y, std::size_t y_stride) {
  float sums[4];
  switch (type) {
    case GgufType::kF32: dot_elements<F32Block>(type, bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kF16: dot_elements<F16Block>(type, bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kBF16: dot_elements<BF16Block>(type, bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kQ4_0: dot_blocks<Q4_0Block>(bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kQ4_1: dot_blocks<Q4_1Block>(bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kQ5_0: dot_blocks<Q5_0Block>(bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kQ5_1: dot_blocks<Q5_1Block>(bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kQ8_0: dot_blocks<Q8_0Block>(bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kQ4_K: dot_blocks<Q4_KBlock>(bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kQ5_K: dot_blocks<Q5_KBlock>(bytes, blocks, x, x_stride, rows, sums); break;
    case GgufType::kQ6_K: dot_blocks<Q6_KBlock>(bytes, blocks, x, x_stride, rows, sums); break;
  }
  for (int r = 0; r < rows; ++r) y[static_cast<std::size_t>(r) * y_stride] = sums[r];
}

template <int kOutputs, int kRows>
void dot_tile(const float* weights, std::size_t size, const float* x, std::size_t x_stride, float* y,
              std::size_t y_stride) {
  Floats total[kOutputs][kRows] = {};
  std::size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int o = 0; o < kOutputs; ++o) {
      const Floats w = load_floats(weights + static_cast<std::size_t>(o) * size + i);
      for (int r = 0; r < kRows; ++r) {
        total[o][r] = multiply_add(w, load_floats(x + static_cast<std::size_t>(r) * x_stride + i), total[o][r]);
      }
    }
  }
  for (int o = 0; o < kOutputs; ++o) {
    for (int r = 0; r < kRows; ++r) {
      float sum = sum_of(total[o][r]);
      for (std::size_t j = i; j < size; ++j) {
        sum += weights[static_cast<std::size_t>(o) * size + j] * x[static_cast<std::size_t>(r) * x_stride + j];
      }
      y[static_cast<std::size_t>(r) * y_stride + static_cast<std::size_t>(o)] = sum;
    }
  }
}

template <int kOutputs>
void dot_tile_rows(const float* weights, std::size_t size, const float* x, std::size_t x_stride, int rows, float* y,
                   std::size_t y_stride) {
  switch (rows) {
    case 1: return dot_tile<kOutputs, 1>(weights, size, x, x_stride, y, y_stride);
    case 2: return dot_tile<kOutputs, 2>(weights, size, x, x_stride, y, y_stride);
    case 3: return dot_tile<kOutputs, 3>(weights, size, x, x_stride, y, y_stride);
    default: return dot_tile<kOutputs, 4>(weights, size, x, x_stride, y, y_stride);
  }
}

void dot_floats(const float* weights, std::size_t size, int outputs, const float* x, std::size_t x_stride, int rows,
                float* y, std::size_t y_stride) {
  switch (outputs) {
    case 1: return dot_tile_rows<1>(weights, size, x, x_stride, rows, y, y_stride);
    case 2: return dot_tile_rows<2>(weights, size, x, x_stride, rows, y, y_stride);
    case 3: return dot_tile_rows<3>(weights, size, x, x_stride, rows, y, y_stride);
    default: return dot_tile_rows<4>(weights, size, x, x_stride, rows, y, y_stride);
  }
}

#undef ESPALIER_INLINE
