// Rates equal transformers' get_scheduler; numbers from tests/fixtures/make_train_numbers.py.
#include "espalier/train/schedule.h"

#include <vector>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

void expect_rates(const Schedule& schedule, const std::vector<double>& expected) {
  for (std::size_t step = 0; step < expected.size(); ++step) {
    EXPECT_NEAR(learning_rate(schedule, static_cast<std::int64_t>(step)), expected[step], 1e-18)
        << "step " << step;
  }
}

TEST(Schedule, EqualsTransformers) {
  expect_rates({2e-4, 0, 4, LrDecay::kLinear}, {2e-4, 1.5e-4, 1e-4, 5e-5});
  expect_rates({2e-4, 3, 8, LrDecay::kLinear}, {0, 6.666666666666667e-05, 0.00013333333333333334,
                                                2e-4, 1.6e-4, 1.2e-4, 8e-5, 4e-5});
  expect_rates({2e-4, 0, 4, LrDecay::kCosine},
               {2e-4, 0.00017071067811865476, 1e-4, 2.9289321881345254e-05});
  expect_rates({2e-4, 3, 8, LrDecay::kCosine},
               {0, 6.666666666666667e-05, 0.00013333333333333334, 2e-4, 0.00018090169943749476,
                0.00013090169943749476, 6.9098300562505272e-05, 1.9098300562505266e-05});
  expect_rates({2e-4, 3, 8, LrDecay::kConstant},
               {0, 6.666666666666667e-05, 0.00013333333333333334, 2e-4, 2e-4, 2e-4});
}

TEST(Schedule, NeverGoesBelowZero) {
  EXPECT_EQ(learning_rate({1e-3, 0, 4, LrDecay::kLinear}, 9), 0.0);
  EXPECT_GE(learning_rate({1e-3, 2, 2, LrDecay::kLinear}, 2), 0.0);
}

TEST(Schedule, NamesGoBothWays) {
  for (const char* name : {"linear", "cosine", "constant"})
    EXPECT_EQ(lr_decay_name(parse_lr_decay(name)), name);
  try {
    parse_lr_decay("step");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_STREQ(error.what(), "--lr-decay: is 'step', allowed are linear, cosine, constant");
  }
}

}  // namespace
}  // namespace espalier
