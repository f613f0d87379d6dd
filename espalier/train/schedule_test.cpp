// Rates equal transformers' get_scheduler; numbers from tests/fixtures/make_train_numbers.py.
#include "espalier/train/schedule.h"

#include <cmath>
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

// torch.optim.lr_scheduler.CosineAnnealingLR(T_max=4, eta_min=1e-3) and MultiStepLR([1, 3], 0.5) at
// lr 0.1, two steps an epoch.
TEST(Schedule, EpochsMilestonesAndFloors) {
  Schedule cosine{0.1, 0, 8, LrDecay::kCosine, 1e-3, 2};
  const double half = 1e-3 + 0.099 * 0.5;
  const double first = 1e-3 + 0.099 * (1 + std::sqrt(0.5)) / 2;
  const double third = 1e-3 + 0.099 * (1 - std::sqrt(0.5)) / 2;
  const std::vector<double> expected{0.1, 0.1, first, first, half, half, third, third};
  for (std::size_t step = 0; step < expected.size(); ++step)
    EXPECT_NEAR(learning_rate(cosine, static_cast<std::int64_t>(step)), expected[step], 1e-15);
  EXPECT_NEAR(learning_rate(cosine, 20), 1e-3, 1e-15);
  Schedule steps{0.1, 0, 8, LrDecay::kMilestones};
  steps.milestones = {2, 6};
  steps.gamma = 0.5;
  steps.granularity = 2;
  const std::vector<double> rates{0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025};
  for (std::size_t step = 0; step < rates.size(); ++step)
    EXPECT_DOUBLE_EQ(learning_rate(steps, static_cast<std::int64_t>(step)), rates[step]);
  const Schedule linear{0.1, 2, 6, LrDecay::kLinear, 0.02};
  EXPECT_NEAR(learning_rate(linear, 1), 0.05, 1e-15);
  EXPECT_NEAR(learning_rate(linear, 4), 0.06, 1e-15);
  EXPECT_NEAR(learning_rate(linear, 6), 0.02, 1e-15);
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
