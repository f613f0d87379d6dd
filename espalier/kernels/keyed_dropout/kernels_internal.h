// The hash behind the masks, and backends on raw memory: torch-free. Internal.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define ESPALIER_HASH __host__ __device__ inline
#else
#define ESPALIER_HASH [[gnu::always_inline]] inline
#endif

namespace espalier {

/// 64-bit finaliser of SplitMix64.
ESPALIER_HASH std::uint64_t mix64(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/// What the counter adds to the key of a mask.
ESPALIER_HASH std::uint64_t mask_key(std::uint64_t seed, std::uint64_t stream,
                                     std::uint64_t counter) {
  return mix64(mix64(seed + 0x9e3779b97f4a7c15ull * (stream + 1)) +
               0xd1342543de82ef95ull * (counter + 1));
}

/// 32 bits that look independent for each element: two rounds of a 32-bit mixer with low bias
/// (constants found by search in the hash-prospector project), each keyed.
ESPALIER_HASH std::uint32_t element_hash(std::uint64_t key, std::uint64_t element) {
  auto x = static_cast<std::uint32_t>(element) ^ static_cast<std::uint32_t>(key);
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  x += static_cast<std::uint32_t>(key >> 32) ^
       (static_cast<std::uint32_t>(element >> 32) * 0x9e3779b9u);
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

/// Elements whose hash is below this are dropped.
inline std::uint32_t drop_threshold(double p) {
  return static_cast<std::uint32_t>(p * 4294967296.0);
}

/// y = mask(x) / (1 - p), or y += that. bf16 values are passed as their 16 bits.
struct DropoutParams {
  const void* x = nullptr;
  void* y = nullptr;
  std::uint64_t seed = 0, stream = 0;
  const std::int64_t* counter = nullptr;  // on the device of x
  std::uint32_t threshold = 0;
  float scale = 1;
  bool bf16 = false, add = false;
};

void keyed_dropout_cpu(const DropoutParams& params, std::int64_t first, std::int64_t last);

/// `stream` is a cudaStream_t. Only in builds with ESPALIER_CUDA.
void launch_keyed_dropout(const DropoutParams& params, std::int64_t count, void* stream);

}  // namespace espalier
