// Every job runs once, several at a time, in order when there is one thread.
#include "espalier/base/thread_pool.h"

#include <atomic>
#include <latch>
#include <vector>

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(ThreadPool, FinishesEveryJobBeforeItGoes) {
  std::atomic<int> done = 0;
  {
    ThreadPool pool(3);
    for (int i = 0; i < 100; ++i) pool.give([&] { ++done; });
  }
  EXPECT_EQ(done, 100);
}

TEST(ThreadPool, JobsRunAtTheSameTime) {
  // Each job waits for the other: one thread alone would never finish.
  std::latch both(2);
  ThreadPool pool(2);
  for (int i = 0; i < 2; ++i) pool.give([&] { both.arrive_and_wait(); });
}

TEST(ThreadPool, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    ThreadPool pool(1);
    for (int i = 0; i < 5; ++i) pool.give([&order, i] { order.push_back(i); });
  }
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace espalier
