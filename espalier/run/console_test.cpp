// The console reporter through a pipe and through a pseudo terminal; layout of its lines by hand.
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <pty.h>

#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/run/console_reporter.h"
#include "espalier/run/progress_line_internal.h"
#include "espalier/run/test_support_internal.h"

namespace espalier {
namespace {

using namespace run_internal;
using run_test::error_of;

/// Collects in a thread what is written to `write_end`.
class Capture {
 public:
  enum class Kind { kPipe, kTerminal };
  explicit Capture(Kind kind, unsigned short columns = 60) {
    int ends[2];
    if (kind == Kind::kPipe) {
      EXPECT_EQ(::pipe(ends), 0);
    } else {
      winsize size{};
      size.ws_col = columns;
      size.ws_row = 20;
      EXPECT_EQ(::openpty(&ends[0], &ends[1], nullptr, nullptr, &size), 0);
    }
    read_end_ = ends[0];
    write_end = ends[1];
    reader_ = std::thread([this] {
      char buffer[4096];
      for (ssize_t got; (got = ::read(read_end_, buffer, sizeof(buffer))) > 0;) {
        text_.append(buffer, static_cast<std::size_t>(got));
      }
    });
  }
  ~Capture() {
    if (reader_.joinable()) text();
  }
  std::string text() {
    ::close(write_end);
    reader_.join();
    ::close(read_end_);
    return text_;
  }
  int write_end = -1;

 private:
  int read_end_ = -1;
  std::string text_;
  std::thread reader_;
};

class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    const char* old = std::getenv(name);
    had_ = old != nullptr;
    if (had_) old_ = old;
    value != nullptr ? ::setenv(name, value, 1) : ::unsetenv(name);
  }
  ~Environment() { had_ ? ::setenv(name_, old_.c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::string old_;
  bool had_;
};

void nap(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

/// What a terminal would show: a small emulator of \r, \n and "erase to end of line".
std::vector<std::string> screen_of(const std::string& text) {
  std::vector<std::string> screen(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      if (i + 3 < text.size() && text.substr(i + 1, 3) == "\033[K") screen.back().clear(), i += 3;
    } else if (text[i] == '\n') {
      screen.emplace_back();
    } else {
      screen.back() += text[i];
    }
  }
  return screen;
}

TEST(Console, PipeGetsWholePlainLines) {
  Capture capture(Capture::Kind::kPipe);
  {
    const auto reporter =
        make_console_reporter(ProgressStyle::kAuto, LogLevel::kInfo, capture.write_end);
    reporter->info("hello");
    reporter->warn("careful");
    reporter->debug("not shown");
    reporter->log(LogLevel::kError, "bad\x1b[31m name\nsecond line");
    reporter->phase("quick", 3, "layers")->update(3);
  }
  EXPECT_EQ(capture.text(), "hello\nwarning: careful\nerror: bad?[31m name\nsecond line\n");
}

TEST(Console, NoPhaseIsSilentForTwoSeconds) {
  Capture plain(Capture::Kind::kPipe), json(Capture::Kind::kPipe), none(Capture::Kind::kPipe);
  {
    const auto a = make_console_reporter(ProgressStyle::kPlain, LogLevel::kInfo, plain.write_end);
    const auto b = make_console_reporter(ProgressStyle::kJson, LogLevel::kInfo, json.write_end);
    const auto c = make_console_reporter(ProgressStyle::kNone, LogLevel::kInfo, none.write_end);
    const auto phase_a = a->phase("hashing", 900, "bytes");
    const auto phase_b = b->phase("hashing", 900, "bytes");
    const auto phase_c = c->phase("hashing", 900, "bytes");
    phase_b->update(10, "first");
    nap(2100);  // one long call without an update
  }
  const auto plain_lines = lines_of(plain.text());
  ASSERT_EQ(plain_lines.size(), 2u);
  EXPECT_TRUE(plain_lines[0].starts_with("hashing: 0 B of 900 B (0 %), RSS ")) << plain_lines[0];
  EXPECT_TRUE(plain_lines[1].starts_with("hashing: 0 B of 900 B in 2.")) << plain_lines[1];
  const auto json_lines = lines_of(json.text());
  ASSERT_GE(json_lines.size(), 3u);
  for (const std::string& line : json_lines)
    EXPECT_EQ(parse_json(line, "line")["phase"], "hashing");
  EXPECT_EQ(parse_json(json_lines.front(), "line")["event"], "begin");
  EXPECT_EQ(parse_json(json_lines[1], "line")["event"], "progress");
  EXPECT_EQ(parse_json(json_lines.back(), "line")["event"], "end");
  EXPECT_EQ(parse_json(json_lines.back(), "line")["done"], 10);
  EXPECT_EQ(parse_json(json_lines.back(), "line")["note"], "first");
  EXPECT_EQ(none.text(), "");
}

TEST(Console, PlainSaysEveryFivePercentButDoesNotFlood) {
  Capture capture(Capture::Kind::kPipe);
  {
    const auto reporter =
        make_console_reporter(ProgressStyle::kPlain, LogLevel::kInfo, capture.write_end);
    const auto phase = reporter->phase("steps", 1000, "steps");
    for (int i = 1; i <= 1000; ++i) {
      phase->update(i, "loss 3.4");
      if (i % 100 == 0) nap(60);  // 0.6 s in all
    }
  }
  const auto lines = lines_of(capture.text());
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_NE(lines[0].find("/1,000 steps ("), std::string::npos);
  EXPECT_NE(lines[0].find("loss 3.4"), std::string::npos);
  EXPECT_NE(lines[1].find("1,000/1,000 steps in"), std::string::npos);
}

TEST(Console, JsonLogLines) {
  Capture capture(Capture::Kind::kPipe);
  make_console_reporter(ProgressStyle::kJson, LogLevel::kInfo, capture.write_end)
      ->warn("a \"b\"\n\xff");
  const auto lines = lines_of(capture.text());
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(parse_json(lines[0], "line")["event"], "log");
  EXPECT_EQ(parse_json(lines[0], "line")["level"], "warn");
}

TEST(Console, TerminalGetsOneRedrawnLineAndUntornLogs) {
  const Environment term("TERM", "xterm"), lang("LC_ALL", "C.UTF-8"), no_color("NO_COLOR", nullptr);
  Capture capture(Capture::Kind::kTerminal, 60);
  {
    const auto reporter =
        make_console_reporter(ProgressStyle::kAuto, LogLevel::kInfo, capture.write_end);
    const auto phase = reporter->phase("scoring", 30, "layers");
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 20; ++i) {
          phase->update(i, "loss 3.41");
          reporter->info(format("thread {} line {}", t, i));
          nap(5);
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
  const std::string text = capture.text();
  EXPECT_NE(text.find("scoring  "), std::string::npos);
  EXPECT_NE(text.find("━"), std::string::npos);
  EXPECT_NE(text.find("\033[36m"), std::string::npos);
  const auto screen = screen_of(text);
  ASSERT_EQ(screen.size(), 81u);  // the bar is gone, 80 log lines and the empty last line are left
  EXPECT_EQ(screen.back(), "");
  std::set<std::string> seen(screen.begin(), screen.end());
  for (int t = 0; t < 4; ++t) {
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(seen.contains(format("thread {} line {}", t, i)));
  }
}

TEST(Console, NoColorAndAsciiAreHonoured) {
  const Environment term("TERM", "xterm"), lang("LC_ALL", "C"), no_color("NO_COLOR", "1");
  Capture capture(Capture::Kind::kTerminal, 70);
  {
    const auto reporter =
        make_console_reporter(ProgressStyle::kBar, LogLevel::kInfo, capture.write_end);
    const auto phase = reporter->phase("x", 10, "layers");
    phase->update(5);
    nap(150);
    phase->update(6);
    reporter->warn("plain");
  }
  const std::string text = capture.text();
  EXPECT_NE(text.find("[######"), std::string::npos) << text;
  EXPECT_NE(text.find("warning: plain"), std::string::npos);
  EXPECT_EQ(text.find("\033[3"), std::string::npos);
  EXPECT_EQ(text.find("\033[1"), std::string::npos);
}

TEST(Console, NestedPhasesShowTheInnermost) {
  const Environment term("TERM", "xterm");
  Capture capture(Capture::Kind::kTerminal, 60);
  {
    const auto reporter =
        make_console_reporter(ProgressStyle::kAuto, LogLevel::kInfo, capture.write_end);
    const auto outer = reporter->phase("outer", 10, "epochs");
    { const auto inner = reporter->phase("inner", 5, "steps"); }
    reporter->info("note");
  }
  const std::string text = capture.text();
  EXPECT_LT(text.find("outer"), text.find("inner"));
  EXPECT_NE(text.rfind("outer"), text.find("outer")) << "drawn again after the inner one ended";
}

TEST(Console, ParsesStylesAndLevels) {
  EXPECT_EQ(parse_progress_style("json"), ProgressStyle::kJson);
  EXPECT_EQ(parse_progress_style("auto"), ProgressStyle::kAuto);
  EXPECT_EQ(parse_log_level("debug"), LogLevel::kDebug);
  const Error style = error_of([] { parse_progress_style("fancy"); });
  EXPECT_EQ(style.kind(), ErrorKind::kUsage);
  EXPECT_EQ(style.subject(), "--progress");
  EXPECT_NE(style.message().find("'fancy'"), std::string::npos);
  const Error level = error_of([] { parse_log_level("loud"); });
  EXPECT_EQ(level.subject(), "--log-level");
  EXPECT_FALSE(level.hint_text().empty());
}

TEST(ProgressLine, TextByHand) {
  ProgressState state{.name = "scoring",
                      .unit = "layers",
                      .note = "loss 3.41",
                      .done = 12,
                      .total = 30,
                      .seconds = 4,
                      .rate = 3,
                      .rss_bytes = 439 << 20};
  EXPECT_EQ(progress_text(state),
            "scoring: 12/30 layers (40 %), 3.0 layers/s, ETA 6.0 s, RSS 439 MiB, loss 3.41");
  state.unit = "bytes";
  state.total = 3 << 20;
  state.done = 3 << 19;
  state.rate = 3 << 19;
  state.note.clear();
  EXPECT_EQ(progress_text(state),
            "scoring: 1.50 MiB of 3.00 MiB (50 %), 1.50 MiB/s, ETA 1.0 s, RSS 439 MiB");
  state.total = 0;
  EXPECT_EQ(progress_amount(state), "1.50 MiB");
  EXPECT_EQ(progress_rate(0.25, "layers"), "4.0 s/layer");
  EXPECT_EQ(progress_rate(1234.4, "tokens"), "1,234 tokens/s");
  EXPECT_EQ(progress_rate(0, "tokens"), "");
}

TEST(ProgressLine, BarFitsAnyWidth) {
  ProgressState state{.name = "scoring layers",
                      .unit = "layers",
                      .note = "loss 3.41",
                      .done = 12,
                      .total = 30,
                      .seconds = 4,
                      .rate = 3,
                      .rss_bytes = 439 << 20};
  for (const std::int64_t total : {30, 0}) {
    state.total = total;
    for (int columns = 1; columns < 200; ++columns) {
      EXPECT_LE(text_columns(progress_bar(state, columns, true, false)), columns);
      EXPECT_LE(text_columns(progress_bar(state, columns, false, false)), columns);
    }
  }
  state.total = 30;
  EXPECT_EQ(progress_bar(state, 30, false, false), "scoring layers  12/30 layers");
  EXPECT_EQ(progress_bar(state, 42, false, false), "scoring layers  [####------]  12/30 layers");
  EXPECT_EQ(
      progress_bar(state, 90, false, false),
      "scoring layers  [########--------------]  12/30 layers  3.0 layers/s  ETA 6.0 s  loss 3.41");
  EXPECT_EQ(progress_bar(state, 200, true, false),
            "scoring layers  ━━━━━━━━━━━━╸───────────────────  12/30 layers  3.0 layers/s  ETA 6.0 "
            "s  RSS "
            "439 MiB  loss 3.41");
}

TEST(ProgressLine, RateIsOfTheLastHalfMinuteAndSkipsResumedWork) {
  RateMeter meter;
  EXPECT_EQ(meter.rate(1), 0);
  meter.add(0, 500);  // resumed at 500
  for (int i = 1; i <= 10; ++i) meter.add(i, 500 + 10 * i);
  EXPECT_DOUBLE_EQ(meter.rate(10), 10);
  EXPECT_EQ(meter.first_done(), 500);
  EXPECT_LT(meter.rate(60), 2.1) << "a stall lowers the rate";
  for (int i = 11; i <= 400; ++i) meter.add(i, 600 + 100 * (i - 10));
  EXPECT_DOUBLE_EQ(meter.rate(400), 100) << "the slow start is forgotten";
}

TEST(ProgressLine, ControlCharactersDoNotReachTheTerminal) {
  EXPECT_EQ(printable("a\x1b[2Jb\rc\n\td\x7f", false), "a?[2Jb?c??d?");
  EXPECT_EQ(printable("a\n\tb\r", true), "a\n\tb?");
  EXPECT_EQ(printable("é\xc2\x9b"
                      "31m中",
                      false),
            "é?31m中");
}

}  // namespace
}  // namespace espalier
