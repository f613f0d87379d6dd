// A fixed number of threads that take jobs from one queue, in the order they were given. For pieces
// of work of seconds that are independent of each other; loops over elements belong to ATen's
// threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace espalier {

class ThreadPool {
 public:
  /// `threads` >= 1.
  explicit ThreadPool(std::int64_t threads);
  /// Finishes every job that was given.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// A job must not throw: what goes wrong in it is its own to keep for whoever waits for it.
  void give(std::function<void()> job);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace espalier
