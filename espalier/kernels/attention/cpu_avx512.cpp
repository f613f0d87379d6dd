// causal_attention on AVX-512 processors: keys in blocks of 128, softmax folded block by block,
// scores never leave the first-level cache. Sums run over head_dim and over keys in ascending
// order, in blocks that start at position 0, so a row's bits depend neither on its neighbours nor
// on how many tokens are asked at once.
//
// Register tile: 6 query rows x 4 vectors of 16 = 24 of 32 registers hold sums, 4 hold a row of
// keys (or values), and one multiply-add in six waits for a broadcast. Against libtorch's kernel,
// which calls MKL's AVX2 code per block on AMD: 4x.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "espalier/kernels/attention/kernels_internal.h"
#include "espalier/kernels/simd_internal.h"

namespace espalier {

#if defined(__x86_64__) && defined(__GNUC__)
namespace {

#ifdef __clang__  // clang has no such width in the attribute, and needs none for explicit vectors
#define ESPALIER_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#else
#define ESPALIER_AVX512 __attribute__((target("arch=x86-64-v4,prefer-vector-width=512")))
#endif

using Vector = float __attribute__((vector_size(64), aligned(4), may_alias));
constexpr std::int64_t kVector = 16;
constexpr std::int64_t kRows = 6;    // query rows of a register tile
constexpr std::int64_t kKeys = 128;  // keys of a block
constexpr std::int64_t kTile = 4 * kVector;
constexpr std::int64_t kMaxHeadDim = 512;
// Below every score; finite, so that "no key seen yet" minus itself is 0 and not NaN.
constexpr float kNothing = -1e30f;

/// Buffers of one thread. `width`: head_dim rounded up to whole vectors; padding is zero.
struct Scratch {
  std::int64_t width = 0;
  std::vector<float> keys;     // [width, kKeys]: transposed
  std::vector<float> values;   // [kKeys, width]
  std::vector<float> queries;  // [rows, width], scaled
  std::vector<float> sums;     // [rows, width]
  std::vector<float> max, total;
};

/// One key or value row of head_dim elements as float32.
ESPALIER_AVX512 void load_row(const void* data, std::int64_t at, std::int64_t count, bool bf16,
                              float scale, float* out) {
  if (bf16) {
    const std::uint16_t* from = static_cast<const std::uint16_t*>(data) + at;
    for (std::int64_t i = 0; i < count; ++i) out[i] = simd::from_bf16(from[i]) * scale;
  } else {
    const float* from = static_cast<const float*>(data) + at;
    for (std::int64_t i = 0; i < count; ++i) out[i] = from[i] * scale;
  }
}

/// Keys [first, first + count) of one head, transposed; columns past `count` are zero.
ESPALIER_AVX512 void pack_keys(const AttentionParams& p, std::int64_t base, std::int64_t first,
                               std::int64_t count, Scratch& s) {
  alignas(64) float rows[kVector][kMaxHeadDim];
  for (std::int64_t j = 0; j < kKeys; j += kVector) {
    for (std::int64_t r = 0; r < kVector; ++r) {
      if (j + r < count)
        load_row(p.k, base + (first + j + r) * p.k_position, p.head_dim, p.bf16, 1.0f, rows[r]);
      else
        std::memset(rows[r], 0, static_cast<std::size_t>(p.head_dim) * sizeof(float));
    }
    for (std::int64_t d = 0; d < p.head_dim; ++d) {
      float* to = s.keys.data() + d * kKeys + j;
      for (std::int64_t r = 0; r < kVector; ++r) to[r] = rows[r][d];
    }
  }
}

ESPALIER_AVX512 void pack_values(const AttentionParams& p, std::int64_t base, std::int64_t first,
                                 std::int64_t count, Scratch& s) {
  for (std::int64_t j = 0; j < count; ++j) {
    load_row(p.v, base + (first + j) * p.v_position, p.head_dim, p.bf16, 1.0f,
             s.values.data() + j * s.width);
  }
}

/// scores[r][c .. c+63] = q_r . k for 64 keys.
ESPALIER_AVX512 void score_tile(const float* queries, std::int64_t width, const float* keys,
                                std::int64_t head_dim, float* scores) {
  Vector sum[kRows][4] = {};
  for (std::int64_t d = 0; d < head_dim; ++d) {
    const auto* key = reinterpret_cast<const Vector*>(keys + d * kKeys);
    const Vector k0 = key[0], k1 = key[1], k2 = key[2], k3 = key[3];
#pragma GCC unroll 6
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float q = queries[r * width + d];
      sum[r][0] += q * k0;
      sum[r][1] += q * k1;
      sum[r][2] += q * k2;
      sum[r][3] += q * k3;
    }
  }
#pragma GCC unroll 6
  for (std::int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (std::int64_t c = 0; c < 4; ++c)
      reinterpret_cast<Vector*>(scores + r * kKeys)[c] = sum[r][c];
  }
}

/// sums[r] = sums[r] * factor[r] + weights[r] . values over `count` keys, for kVectors vectors of
/// head_dim.
template <int kVectors>
ESPALIER_AVX512 void value_tile(const float* weights, const float* factor, const float* values,
                                std::int64_t width, std::int64_t count, float* sums) {
  Vector sum[kRows][kVectors];
#pragma GCC unroll 6
  for (std::int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kVectors; ++c)
      sum[r][c] = reinterpret_cast<const Vector*>(sums + r * width)[c] * factor[r];
  }
  for (std::int64_t j = 0; j < count; ++j) {
    const auto* value = reinterpret_cast<const Vector*>(values + j * width);
    Vector v[kVectors];
#pragma GCC unroll 4
    for (int c = 0; c < kVectors; ++c) v[c] = value[c];
#pragma GCC unroll 6
    for (std::int64_t r = 0; r < kRows; ++r) {
      const float w = weights[r * kKeys + j];
#pragma GCC unroll 4
      for (int c = 0; c < kVectors; ++c) sum[r][c] += w * v[c];
    }
  }
#pragma GCC unroll 6
  for (std::int64_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kVectors; ++c) reinterpret_cast<Vector*>(sums + r * width)[c] = sum[r][c];
  }
}

/// Masks one row of scores to keys [low, high), folds it into max and total and turns it into
/// weights exp(score - max); returns the factor that older sums take.
ESPALIER_AVX512 float fold_row(float* scores, std::int64_t low, std::int64_t high, float* max,
                               float* total) {
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  for (std::int64_t j = 0; j < low; ++j) scores[j] = kMasked;
  for (std::int64_t j = high; j < kKeys; ++j) scores[j] = kMasked;
  float lanes[kVector];
  for (std::int64_t j = 0; j < kVector; ++j) lanes[j] = kNothing;
  for (std::int64_t i = 0; i < kKeys; i += kVector) {
    for (std::int64_t j = 0; j < kVector; ++j)
      lanes[j] = scores[i + j] > lanes[j] ? scores[i + j] : lanes[j];
  }
  float top = *max;
  for (std::int64_t j = 0; j < kVector; ++j) top = lanes[j] > top ? lanes[j] : top;
  float sums[kVector] = {};
  for (std::int64_t i = 0; i < kKeys; i += kVector) {
    for (std::int64_t j = 0; j < kVector; ++j) {
      scores[i + j] = simd::exp(scores[i + j] - top);
      sums[j] += scores[i + j];
    }
  }
  const float factor = simd::exp(*max - top);
  *total = *total * factor + simd::sum_lanes(sums);
  *max = top;
  return factor;
}

struct Block {
  std::int64_t first = 0, count = 0;  // keys
};

/// The rows row .. row + 5 of a task, at the given positions, against one block of keys.
ESPALIER_AVX512 void fold_tile(const AttentionParams& p, const Block& block,
                               const std::int64_t* position, std::int64_t row, Scratch& s) {
  alignas(64) float scores[kRows * kKeys];
  float factor[kRows];
  std::int64_t end = 0;  // keys that some row of the tile sees
  for (std::int64_t r = 0; r < kRows; ++r)
    end = std::max(end, std::min(block.count, position[row + r] + 1 - block.first));
  if (end <= 0) return;
  float* queries = s.queries.data() + row * s.width;
  for (std::int64_t c = 0; c < end; c += kTile)
    score_tile(queries, s.width, s.keys.data() + c, p.head_dim, scores + c);
  for (std::int64_t r = 0; r < kRows; ++r) {
    const std::int64_t at = position[row + r];
    const std::int64_t high = std::clamp<std::int64_t>(at + 1 - block.first, 0, block.count);
    const std::int64_t low =
        p.window > 0 ? std::clamp<std::int64_t>(at - p.window + 1 - block.first, 0, high) : 0;
    factor[r] =
        fold_row(scores + r * kKeys, low, high, s.max.data() + row + r, s.total.data() + row + r);
  }
  for (std::int64_t c = 0; c < s.width; c += kTile) {
    float* sums = s.sums.data() + row * s.width + c;
    const float* values = s.values.data() + c;
    switch (std::min<std::int64_t>(4, (s.width - c) / kVector)) {
      case 4:
        value_tile<4>(scores, factor, values, s.width, end, sums);
        break;
      case 3:
        value_tile<3>(scores, factor, values, s.width, end, sums);
        break;
      case 2:
        value_tile<2>(scores, factor, values, s.width, end, sums);
        break;
      default:
        value_tile<1>(scores, factor, values, s.width, end, sums);
        break;
    }
  }
}

ESPALIER_AVX512 void write_row(const float* sums, float total, std::int64_t count, bool bf16,
                               void* out, std::int64_t at) {
  const float scale = 1.0f / total;
  if (bf16) {
    std::uint16_t* to = static_cast<std::uint16_t*>(out) + at;
    for (std::int64_t i = 0; i < count; ++i) to[i] = simd::to_bf16(sums[i] * scale);
  } else {
    float* to = static_cast<float*>(out) + at;
    for (std::int64_t i = 0; i < count; ++i) to[i] = sums[i] * scale;
  }
}

/// Query tokens first_token .. + tokens of all heads of one group: row g * tokens + t is token t of
/// the group's head g.
void run_task(const AttentionParams& p, std::int64_t batch, std::int64_t kv_head,
              std::int64_t first_token, Scratch& s) {
  const std::int64_t groups = p.heads / p.kv_heads,
                     tokens = std::min(kAttentionTaskTokens, p.tokens - first_token);
  const std::int64_t rows = groups * tokens, padded = (rows + kRows - 1) / kRows * kRows;
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  s.queries.assign(size(padded * s.width), 0);
  s.sums.assign(size(padded * s.width), 0);
  s.max.assign(size(padded), kNothing);
  s.total.assign(size(padded), 0);
  std::vector<std::int64_t> position(size(padded), -1);  // of padding: sees nothing
  const std::int64_t start =
      p.positions - p.tokens + first_token;  // position of the task's first token
  const auto head_of = [&](std::int64_t row) { return kv_head * groups + row / tokens; };
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t token = row % tokens;
    load_row(p.q, batch * p.q_batch + (first_token + token) * p.q_token + head_of(row) * p.q_head,
             p.head_dim, p.bf16, p.scale, s.queries.data() + row * s.width);
    position[size(row)] = start + token;
  }
  const std::int64_t lowest = p.window > 0 ? std::max<std::int64_t>(0, start - p.window + 1) : 0;
  for (std::int64_t first = lowest / kKeys * kKeys; first < start + tokens; first += kKeys) {
    const Block block{first, std::min(kKeys, start + tokens - first)};
    pack_keys(p, batch * p.k_batch + kv_head * p.k_head, first, block.count, s);
    pack_values(p, batch * p.v_batch + kv_head * p.v_head, first, block.count, s);
    for (std::int64_t row = 0; row < padded; row += kRows)
      fold_tile(p, block, position.data(), row, s);
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t at =
        ((batch * p.tokens + first_token + row % tokens) * p.heads + head_of(row)) * p.head_dim;
    write_row(s.sums.data() + row * s.width, s.total[size(row)], p.head_dim, p.bf16, p.out, at);
  }
}

}  // namespace

bool has_attention_cpu(std::int64_t head_dim) {
  static const bool supported =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl");
  return supported && head_dim > 0 && head_dim <= kMaxHeadDim;
}

void attention_cpu(const AttentionParams& params, std::int64_t first, std::int64_t last) {
  Scratch scratch;
  scratch.width = (params.head_dim + kVector - 1) / kVector * kVector;
  scratch.keys.assign(static_cast<std::size_t>(scratch.width * kKeys), 0);
  scratch.values.assign(static_cast<std::size_t>(scratch.width * kKeys), 0);
  const std::int64_t blocks = (params.tokens + kAttentionTaskTokens - 1) / kAttentionTaskTokens;
  for (std::int64_t task = first; task < last; ++task) {
    const std::int64_t block = task % blocks, head = task / blocks % params.kv_heads,
                       batch = task / blocks / params.kv_heads;
    run_task(params, batch, head, block * kAttentionTaskTokens, scratch);
  }
}
#else
bool has_attention_cpu(std::int64_t) { return false; }
void attention_cpu(const AttentionParams&, std::int64_t, std::int64_t) {}
#endif

std::int64_t attention_tasks(const AttentionParams& params) {
  return params.batch * params.kv_heads *
         ((params.tokens + kAttentionTaskTokens - 1) / kAttentionTaskTokens);
}

}  // namespace espalier
