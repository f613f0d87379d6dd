// Every row once an epoch, new order each epoch, and no dependence on the path that led to a step.
#include "espalier/data/row_order.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

TEST(RowOrder, VisitsEveryRowOnceAnEpochAndShortensTheLastBatch) {
  RowOrder order(10, 4, 7);
  EXPECT_EQ(order.steps_per_epoch(), 3);
  std::vector<std::vector<std::int64_t>> epochs(2);
  for (std::int64_t step = 0; step < 6; ++step) {
    const std::vector<std::int64_t> rows = order.batch(step);
    EXPECT_EQ(rows.size(), step % 3 == 2 ? 2u : 4u);
    std::vector<std::int64_t>& epoch = epochs[static_cast<std::size_t>(order.epoch_of(step))];
    epoch.insert(epoch.end(), rows.begin(), rows.end());
  }
  EXPECT_NE(epochs[0], epochs[1]);
  for (std::vector<std::int64_t>& epoch : epochs) {
    std::sort(epoch.begin(), epoch.end());
    EXPECT_EQ(epoch, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  }
}

TEST(RowOrder, IsAPureFunctionOfSeedAndStep) {
  RowOrder forward(64, 8, 3), jumping(64, 8, 3), other(64, 8, 4);
  std::vector<std::vector<std::int64_t>> straight;
  for (std::int64_t step = 0; step < 20; ++step) straight.push_back(forward.batch(step));
  for (const std::int64_t step : {17, 2, 9, 0, 19})
    EXPECT_EQ(jumping.batch(step), straight[static_cast<std::size_t>(step)]);
  EXPECT_NE(other.batch(0), straight[0]);
}

TEST(RowOrder, ABatchLargerThanTheDataIsTheWholeData) {
  RowOrder order(3, 8, 0);
  EXPECT_EQ(order.steps_per_epoch(), 1);
  EXPECT_EQ(order.batch(5).size(), 3u);
}

TEST(RowOrder, RefusesNoRows) {
  try {
    RowOrder order(0, 8, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_STREQ(error.what(), "training rows: 0 rows in batches of 8: both must be at least 1");
  }
}

}  // namespace
}  // namespace espalier
