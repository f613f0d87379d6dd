// Stop strings across pieces, overlapping starts, and text that only looked like one.
#include "espalier/sample/stop_filter.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

/// What is shown when `text` arrives in pieces of `size` bytes.
std::string shown(const std::string& text, std::size_t size, const std::vector<std::string>& stops,
                  bool* stopped = nullptr) {
  StopFilter filter(stops);
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += size) out += filter.push(text.substr(i, size));
  if (stopped != nullptr) *stopped = filter.stopped();
  return out + filter.finish();
}

TEST(StopFilterTest, SameResultForEveryCutting) {
  for (std::size_t size = 1; size < 12; ++size) {
    bool stopped = false;
    EXPECT_EQ(shown("one two three", size, {"two"}, &stopped), "one ");
    EXPECT_TRUE(stopped);
    EXPECT_EQ(shown("one two three", size, {"four"}, &stopped), "one two three");
    EXPECT_FALSE(stopped);
    EXPECT_EQ(shown("aaab", size, {"aab"}), "a");
    EXPECT_EQ(shown("x\n\nUser: y", size, {"\n\nUser:", "zzz"}), "x");
  }
}

TEST(StopFilterTest, TheEarlierStopWins) { EXPECT_EQ(shown("abcdef", 6, {"ef", "cd"}), "ab"); }

TEST(StopFilterTest, HoldsBackOnlyWhatCouldBecomeAStop) {
  StopFilter filter({"END"});
  EXPECT_EQ(filter.push("ab"), "ab");
  EXPECT_EQ(filter.push("cE"), "c");
  EXPECT_EQ(filter.push("N"), "");
  EXPECT_EQ(filter.push("x"), "ENx");
  EXPECT_EQ(filter.push("E"), "");
  EXPECT_EQ(filter.finish(), "E");
  EXPECT_FALSE(filter.stopped());
}

TEST(StopFilterTest, EmptyStopsAreIgnored) { EXPECT_EQ(shown("abc", 1, {""}), "abc"); }

}  // namespace
}  // namespace espalier
