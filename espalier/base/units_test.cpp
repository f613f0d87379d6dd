// How quantities read.
#include "espalier/base/units.h"

#include <vector>

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(Bytes, ThreeSignificantDigits) {
  EXPECT_EQ(to_string(Bytes{0}), "0 B");
  EXPECT_EQ(to_string(Bytes{999}), "999 B");
  EXPECT_EQ(to_string(Bytes{1536}), "1.50 KiB");
  EXPECT_EQ(to_string(Bytes{20 * 1024}), "20.0 KiB");
  EXPECT_EQ(to_string(Bytes{439LL << 20}), "439 MiB");
  EXPECT_EQ(to_string(Bytes{4LL << 30}), "4.00 GiB");
  EXPECT_EQ(to_string(Bytes{1LL << 50}), "1.00 PiB");
}

TEST(Bytes, NearTheNextUnitTakesIt) {
  // 1000 KiB would be four digits, so it reads as MiB.
  EXPECT_EQ(to_string(Bytes{1000LL << 10}), "0.98 MiB");
  EXPECT_EQ(to_string(Bytes{999LL << 10}), "999 KiB");
}

TEST(Seconds, FromMillisecondsToHours) {
  EXPECT_EQ(format_seconds(0.8301), "830 ms");
  EXPECT_EQ(format_seconds(4.24), "4.2 s");
  EXPECT_EQ(format_seconds(59.96), "1 min 00 s");
  EXPECT_EQ(format_seconds(200.4), "3 min 20 s");
  EXPECT_EQ(format_seconds(3599.6), "1 h 00 min");
  EXPECT_EQ(format_seconds(7500), "2 h 05 min");
}

TEST(Count, ThousandsAreSeparated) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1000), "1,000");
  EXPECT_EQ(format_count(1234567), "1,234,567");
  EXPECT_EQ(format_count(-1234567), "-1,234,567");
}

TEST(Rss, GrowsWithTouchedMemoryAndPeakKeepsIt) {
  const Bytes before = current_rss();
  ASSERT_GT(before.count, 0);
  {
    std::vector<char> block(64 << 20, 1);
    EXPECT_GT(current_rss().count, before.count + (48LL << 20));
    ASSERT_EQ(block.back(), 1);
  }
  EXPECT_GE(peak_rss().count, before.count + (48LL << 20));
}

TEST(Stopwatch, DoesNotRunBackwards) {
  const Stopwatch watch;
  const double first = watch.seconds();
  EXPECT_GE(first, 0);
  EXPECT_GE(watch.seconds(), first);
}

}  // namespace
}  // namespace espalier
