// First signal asks, second leaves with 130. In children, since handlers live as long as the
// process.
#include <thread>

#include <signal.h>

#include <gtest/gtest.h>

#include "espalier/run/console_reporter.h"
#include "espalier/run/test_support_internal.h"

namespace espalier {
namespace {

using run_test::in_child;

TEST(SignalStop, FirstAsksSecondLeaves) {
  for (const int signal : {SIGINT, SIGTERM}) {
    EXPECT_EQ(in_child([&] {
                const StopToken& token = install_signal_stop();
                if (token.stop_requested()) return 1;
                ::raise(signal);
                if (!token.stop_requested()) return 2;
                if (&token != &install_signal_stop()) return 3;
                return 0;
              }),
              0);
    EXPECT_EQ(in_child([&] {
                install_signal_stop();
                ::raise(signal);
                ::raise(signal);
                return 1;
              }),
              130);
  }
}

// On the stack of the computation the handler's frame corrupts what oneDNN keeps below the stack
// pointer.
TEST(SignalStop, HandlerHasAStackOfItsOwn) {
  EXPECT_EQ(in_child([] {
              install_signal_stop();
              stack_t stack{};
              if (::sigaltstack(nullptr, &stack) != 0 || (stack.ss_flags & SS_DISABLE) != 0)
                return 1;
              for (const int signal : {SIGINT, SIGTERM}) {
                struct sigaction action {};
                ::sigaction(signal, nullptr, &action);
                if ((action.sa_flags & SA_ONSTACK) == 0) return 2;
              }
              return 0;
            }),
            0);
}

TEST(SignalStop, IgnoredSignalsStayIgnored) {
  EXPECT_EQ(in_child([] {
              ::signal(SIGINT, SIG_IGN);
              const StopToken& token = install_signal_stop();
              ::raise(SIGINT);
              ::raise(SIGINT);
              return token.stop_requested() ? 1 : 0;
            }),
            0);
}

TEST(SignalStop, ReporterTellsThatTheSignalWasHeard) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_EQ(in_child([&] {
              install_signal_stop();
              const auto reporter =
                  make_console_reporter(ProgressStyle::kPlain, LogLevel::kInfo, ends[1]);
              const auto phase = reporter->phase("training", 10, "steps");
              std::this_thread::sleep_for(std::chrono::milliseconds(50));
              ::raise(SIGINT);
              std::this_thread::sleep_for(std::chrono::milliseconds(450));
              return 0;
            }),
            0);
  ::close(ends[1]);
  char buffer[512] = {};
  ASSERT_GT(::read(ends[0], buffer, sizeof(buffer) - 1), 0);
  EXPECT_STREQ(buffer,
               "warning: stopping at the next safe point; press Ctrl-C again to stop at once\n");
  ::close(ends[0]);
}

}  // namespace
}  // namespace espalier
