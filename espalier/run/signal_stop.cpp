// SIGINT and SIGTERM: first ask, then leave. The handler does two async-signal-safe things and
// nothing else.
#include <atomic>
#include <mutex>

#include <signal.h>
#include <unistd.h>

#include "espalier/run/console_reporter.h"
#include "espalier/run/signal_stop_internal.h"

namespace espalier {
namespace {

constexpr int kExitInterrupted = 130;

std::atomic<int> g_signals{0};  // written by the handler; lock-free, so async-signal-safe
static_assert(std::atomic<int>::is_always_lock_free);

void on_signal(int) {
  if (g_signals.fetch_add(1, std::memory_order_relaxed) > 0) ::_exit(kExitInterrupted);
}

// The handler must not run on the stack of the computation: oneDNN's AVX-512 sgemm keeps numbers
// far below the stack pointer, and a signal frame written there turns into heap corruption
// ("corrupted size vs. prev_size"). libtorch 2.11.0; with 2,000 signals a second on the ordinary
// stack every fine-tuning run died, with this stack none of them. Signals to a process go to its
// first thread when that does not block them, so its stack is the one that counts.
void use_own_stack() {
  stack_t current{};
  if (::sigaltstack(nullptr, &current) == 0 && (current.ss_flags & SS_DISABLE) == 0) return;
  static char memory[1 << 16];  // an AVX-512 or AMX signal frame takes up to 12 KiB
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = sizeof memory;
  ::sigaltstack(&stack, nullptr);
}

struct SignalStop final : StopToken {
  bool stop_requested() const override { return g_signals.load(std::memory_order_relaxed) > 0; }
};

}  // namespace

int run_internal::stop_signals() { return g_signals.load(std::memory_order_relaxed); }

void forget_stop_signals() { g_signals.store(0, std::memory_order_relaxed); }

const StopToken& install_signal_stop() {
  static const SignalStop token;
  static std::once_flag once;
  std::call_once(once, [] {
    use_own_stack();
    for (const int signal : {SIGINT, SIGTERM}) {
      struct sigaction current {};
      // A signal ignored on entry stays ignored: `nohup` and background jobs of non-interactive
      // shells ask for that.
      if (::sigaction(signal, nullptr, &current) == 0 && current.sa_handler == SIG_IGN) continue;
      struct sigaction action {};
      action.sa_handler = on_signal;
      action.sa_flags = SA_RESTART | SA_ONSTACK;
      ::sigemptyset(&action.sa_mask);
      ::sigaction(signal, &action, nullptr);
    }
  });
  return token;
}

}  // namespace espalier
