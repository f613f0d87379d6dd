// The average against numbers computed by hand.
#include "espalier/train/weight_average.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

namespace espalier {
namespace {

TEST(WeightAverage, FollowsTheTensorsAndCopiesCounters) {
  at::Tensor weight = at::tensor({4.0f, -8.0f}), count = at::full({}, 3, at::kLong);
  WeightAverage average({weight, count}, 0.75);
  weight.copy_(at::tensor({8.0f, 0.0f}));
  count.fill_(7);
  average.update();
  // 0.75 * 4 + 0.25 * 8 = 5; 0.75 * -8 = -6.
  EXPECT_TRUE(at::equal(average.values()[0], at::tensor({5.0f, -6.0f})));
  EXPECT_EQ(average.values()[1].item<int>(), 7);
  average.update();
  EXPECT_TRUE(at::equal(average.values()[0], at::tensor({5.75f, -4.5f})));
  EXPECT_TRUE(at::equal(weight, at::tensor({8.0f, 0.0f})));
}

TEST(WeightAverage, SwappingTwiceChangesNothing) {
  at::Tensor weight = at::tensor({4.0f});
  WeightAverage average({weight}, 0.5);
  weight.fill_(2);
  average.update();
  average.swap();
  EXPECT_EQ(weight.item<float>(), 3);
  EXPECT_EQ(average.values()[0].item<float>(), 2);
  average.swap();
  EXPECT_EQ(weight.item<float>(), 2);
  EXPECT_EQ(average.values()[0].item<float>(), 3);
}

TEST(WeightAverage, NoneDoesNothing) {
  WeightAverage none;
  none.update();
  none.swap();
  EXPECT_FALSE(none.exists());
  EXPECT_TRUE(none.values().empty());
}

}  // namespace
}  // namespace espalier
