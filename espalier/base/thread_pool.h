// A fixed number of threads that work through a queue, for work that runs beside the caller
// (decoding ahead of a training step). Loops that the caller waits for belong to at::parallel_for.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <type_traits>
#include <utility>

namespace espalier {

/// Tasks start in the order in which they were submitted. The destructor waits for running tasks;
/// those that have not started are dropped, and their futures throw std::future_error.
class ThreadPool {
 public:
  /// `threads` >= 1.
  explicit ThreadPool(std::int64_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Queues `task`; the future has its result or its exception.
  template <class Task>
  auto submit(Task task) -> std::future<std::invoke_result_t<Task&>> {
    auto packaged =
        std::make_shared<std::packaged_task<std::invoke_result_t<Task&>()>>(std::move(task));
    auto result = packaged->get_future();
    enqueue([packaged] { (*packaged)(); });
    return result;
  }

 private:
  void enqueue(std::function<void()> task);

  struct State;
  std::unique_ptr<State> state_;
};

/// Threads of this machine that can run at once, at least 1.
std::int64_t available_threads();

}  // namespace espalier
