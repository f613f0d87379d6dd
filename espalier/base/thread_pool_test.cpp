// Results, exceptions, and an end with work still queued.
#include "espalier/base/thread_pool.h"

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(ThreadPool, RunsEveryTaskAndGivesItsResult) {
  ThreadPool pool(3);
  std::vector<std::future<int>> results;
  for (int i = 0; i < 200; ++i) results.push_back(pool.submit([i] { return i * i; }));
  for (int i = 0; i < 200; ++i) EXPECT_EQ(results[static_cast<std::size_t>(i)].get(), i * i);
}

TEST(ThreadPool, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    ThreadPool pool(1);
    std::future<void> last;
    for (int i = 0; i < 50; ++i) last = pool.submit([&order, i] { order.push_back(i); });
    last.get();
  }
  std::vector<int> expected(50);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST(ThreadPool, ExceptionsReachTheFuture) {
  ThreadPool pool(2);
  auto failed = pool.submit([]() -> int { throw std::runtime_error("no"); });
  EXPECT_THROW(failed.get(), std::runtime_error);
  EXPECT_EQ(pool.submit([] { return 7; }).get(), 7);  // the thread goes on
}

TEST(ThreadPool, TheEndDropsWhatHasNotStarted) {
  std::promise<void> gate;
  std::atomic<bool> started = false;
  std::future<void> running, dropped;
  {
    ThreadPool pool(1);
    running = pool.submit([&] {
      started = true;
      gate.get_future().get();
    });
    dropped = pool.submit([] {});
    while (!started) std::this_thread::yield();
    std::thread([&] { gate.set_value(); }).detach();
  }
  running.get();
  // The only thread may have taken it before the end came.
  try {
    dropped.get();
  } catch (const std::future_error& error) {
    EXPECT_EQ(error.code(), std::future_errc::broken_promise);
  }
}

}  // namespace
}  // namespace espalier
