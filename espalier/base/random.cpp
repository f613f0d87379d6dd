// SplitMix64 (Steele, Lea and Flood 2014) and seed mixing by XXH3.
#include "espalier/base/random.h"

#include <array>
#include <numeric>
#include <utility>

#include <xxhash.h>

#include "espalier/base/error.h"

namespace espalier {

std::uint64_t stream_seed(std::uint64_t seed, std::string_view name, std::int64_t rank,
                          std::int64_t step) {
  const std::array<std::uint64_t, 3> numbers{seed, static_cast<std::uint64_t>(rank),
                                             static_cast<std::uint64_t>(step)};
  return XXH3_64bits_withSeed(name.data(), name.size(),
                              XXH3_64bits(numbers.data(), sizeof(numbers)));
}

std::uint64_t RandomStream::next() {
  state_ += 0x9e3779b97f4a7c15ULL;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

double RandomStream::uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

std::uint64_t RandomStream::below(std::uint64_t bound) {
  ESPALIER_ASSERT(bound > 0);
  // Values below `reject` would make the first residues more likely by one part in 2^64 / bound.
  const std::uint64_t reject = (0 - bound) % bound;
  for (;;) {
    const std::uint64_t value = next();
    if (value >= reject) return value % bound;
  }
}

std::vector<std::int64_t> random_permutation(std::int64_t count, RandomStream& stream) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[stream.below(i)]);
  return order;
}

}  // namespace espalier
