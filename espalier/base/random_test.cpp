// Streams: fixed values (equal on every platform), independence of names, uniformity.
#include "espalier/base/random.h"

#include <algorithm>
#include <array>
#include <set>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

// First outputs of SplitMix64 with seed 1234567, from the generator's published test.
TEST(RandomStream, IsSplitMix64) {
  RandomStream stream(1234567);
  EXPECT_EQ(stream.next(), 6457827717110365317ull);
  EXPECT_EQ(stream.next(), 3203168211198807973ull);
  EXPECT_EQ(stream.next(), 9817491932198370423ull);
}

TEST(StreamSeed, EveryPartMatters) {
  const std::set<std::uint64_t> seeds{stream_seed(1, "a"),       stream_seed(2, "a"),
                                      stream_seed(1, "b"),       stream_seed(1, "a", 1),
                                      stream_seed(1, "a", 0, 1), stream_seed(1, "a", 1, 1)};
  EXPECT_EQ(seeds.size(), 6u);
  EXPECT_EQ(stream_seed(1, "a", 2, 3), stream_seed(1, "a", 2, 3));
}

TEST(RandomStream, UniformStaysBelowOneAndHasTheRightMean) {
  RandomStream stream(7);
  double sum = 0;
  constexpr int kCount = 20000;
  for (int i = 0; i < kCount; ++i) {
    const double value = stream.uniform();
    ASSERT_GE(value, 0);
    ASSERT_LT(value, 1);
    sum += value;
  }
  EXPECT_NEAR(sum / kCount, 0.5, 0.01);  // 5 standard errors of 1 / sqrt(12 n)
}

TEST(RandomStream, BelowIsUnbiasedOverThree) {
  RandomStream stream(11);
  std::array<int, 3> counts{};
  constexpr int kCount = 30000;
  for (int i = 0; i < kCount; ++i) ++counts[stream.below(3)];
  for (const int count : counts) EXPECT_NEAR(count, kCount / 3, 450);  // 5.5 standard deviations
  EXPECT_EQ(stream.below(1), 0u);
  EXPECT_THROW(stream.below(0), Error);
}

TEST(RandomPermutation, HoldsEveryIndexOnceAndRepeats) {
  RandomStream a(3, "order"), b(3, "order"), c(4, "order");
  const auto first = random_permutation(100, a);
  auto sorted = first;
  std::sort(sorted.begin(), sorted.end());
  for (std::int64_t i = 0; i < 100; ++i) ASSERT_EQ(sorted[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(first, random_permutation(100, b));
  EXPECT_NE(first, random_permutation(100, c));
  EXPECT_TRUE(random_permutation(0, a).empty());
}

}  // namespace
}  // namespace espalier
