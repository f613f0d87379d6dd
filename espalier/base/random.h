// Named random streams: every consumer derives its own from (seed, name, rank, step), so adding a
// consumer or changing the order of calls never changes what another one draws. Torch-free;
// tensor/random.h makes at::Generators.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace espalier {

/// A 64-bit seed that depends on all four values and on nothing else (same on every platform).
std::uint64_t stream_seed(std::uint64_t seed, std::string_view name, std::int64_t rank = 0,
                          std::int64_t step = 0);

/// Small counter-style generator (SplitMix64). Equal seeds give equal sequences everywhere, unlike
/// std::uniform_int_distribution, whose algorithm the standard leaves open.
class RandomStream {
 public:
  explicit RandomStream(std::uint64_t seed) : state_(seed) {}
  RandomStream(std::uint64_t seed, std::string_view name, std::int64_t rank = 0,
               std::int64_t step = 0)
      : state_(stream_seed(seed, name, rank, step)) {}

  std::uint64_t next();
  /// Uniform in [0, 1) with 53 random bits.
  double uniform();
  /// Uniform in [0, bound), unbiased; bound > 0.
  std::uint64_t below(std::uint64_t bound);

  std::uint64_t state() const { return state_; }

 private:
  std::uint64_t state_;
};

/// A permutation of 0..count-1 (Fisher-Yates over `below`).
std::vector<std::int64_t> random_permutation(std::int64_t count, RandomStream& stream);

}  // namespace espalier
