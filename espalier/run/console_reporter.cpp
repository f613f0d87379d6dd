// One object, `Console`, owns the descriptor, the running phases and a ticker thread; the reporter
// and its phases share it. Everything is written under one mutex with one write(2), so log lines
// and bars never mix.
#include "espalier/run/console_reporter.h"

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/ioctl.h>
#include <unistd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/run/progress_line_internal.h"
#include "espalier/run/signal_stop_internal.h"

namespace espalier {

using namespace run_internal;

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kBarInterval = 0.1;     // seconds between redraws
constexpr double kSilence = 1.8;         // a phase says something at least once before this, < 2 s
constexpr double kPlainInterval = 10.0;  // then a line per 10 s ...
constexpr double kPlainShare = 0.05;     // ... or 5 %
constexpr double kPlainMinInterval = 0.5;  // but not a flood when all of it takes a second
constexpr double kJsonInterval = 0.25;
constexpr auto kTick = std::chrono::milliseconds(200);

struct Phase {
  ProgressState state;
  Clock::time_point start = Clock::now();
  RateMeter meter;
  double last_shown = 0;  // seconds since start
  std::int64_t last_shown_done = 0;
  bool shown = false;
};

bool env_set(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

bool utf8_locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (!env_set(name)) continue;
    std::string value = std::getenv(name);
    std::transform(value.begin(), value.end(), value.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    return value.find("utf-8") != std::string::npos || value.find("utf8") != std::string::npos;
  }
  return false;
}

bool dumb_terminal() {
  const char* term = std::getenv("TERM");
  return term == nullptr || *term == '\0' || std::strcmp(term, "dumb") == 0;
}

std::string level_prefix(LogLevel level, bool color) {
  switch (level) {
    case LogLevel::kError:
      return color ? "\033[1;31merror:\033[0m " : "error: ";
    case LogLevel::kWarn:
      return color ? "\033[1;33mwarning:\033[0m " : "warning: ";
    case LogLevel::kInfo:
      return "";
    case LogLevel::kDebug:
      return color ? "\033[90mdebug:\033[0m " : "debug: ";
  }
  return "";
}

const char* level_word(LogLevel level) {
  static constexpr const char* kWords[] = {"error", "warn", "info", "debug"};
  return kWords[static_cast<int>(level)];
}

class Console {
 public:
  Console(ProgressStyle style, LogLevel level, int fd) : level_(level), fd_(fd) {
    const bool terminal = ::isatty(fd) == 1 && !dumb_terminal();
    style_ = style != ProgressStyle::kAuto ? style
             : terminal                    ? ProgressStyle::kBar
                                           : ProgressStyle::kPlain;
    color_ = terminal && !env_set("NO_COLOR");
    unicode_ = utf8_locale();
  }

  ~Console() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    if (ticker_.joinable()) ticker_.join();
  }

  void log(LogLevel level, std::string_view message) {
    if (level > level_) return;
    const std::lock_guard lock(mutex_);
    write_log(level, message);
  }

  std::shared_ptr<Phase> begin(std::string_view name, std::int64_t total, std::string_view unit) {
    auto phase = std::make_shared<Phase>();
    phase->state.name = printable(name, false);
    phase->state.unit = printable(unit, false);
    phase->state.total = total;
    if (style_ == ProgressStyle::kNone) return phase;
    const std::lock_guard lock(mutex_);
    phases_.push_back(phase);
    if (!ticker_.joinable()) ticker_ = std::thread([this] { tick(); });
    if (style_ == ProgressStyle::kJson) show_json(*phase, "begin");
    if (style_ == ProgressStyle::kBar) draw_bar();
    return phase;
  }

  void update(Phase& phase, std::int64_t done, std::string_view note) {
    if (style_ == ProgressStyle::kNone) return;
    const std::lock_guard lock(mutex_);
    phase.state.done = done;
    if (phase.state.note != note) phase.state.note = printable(note, false);
    refresh(phase);
    phase.meter.add(phase.state.seconds, done);
    show_if_due(phase);
  }

  void end(const std::shared_ptr<Phase>& phase) {
    if (style_ == ProgressStyle::kNone) return;
    const std::lock_guard lock(mutex_);
    std::erase(phases_, phase);
    refresh(*phase);
    if (style_ == ProgressStyle::kJson) {
      show_json(*phase, "end");
    } else if (phase->state.seconds >= kSilence ||
               (phase->shown && style_ == ProgressStyle::kPlain)) {
      write_line(final_text(*phase));
    }
    if (style_ == ProgressStyle::kBar) draw_bar();
  }

 private:
  void tick() {
    std::unique_lock lock(mutex_);
    int heard = stop_signals();
    while (!stopping_) {
      wake_.wait_for(lock, kTick);
      if (stop_signals() > std::exchange(heard, stop_signals()) && heard == 1) {
        write_log(LogLevel::kWarn,
                  "stopping at the next safe point; press Ctrl-C again to stop at once");
      }
      // Copies: show_if_due never changes the list, but a reader should not have to check.
      for (const std::shared_ptr<Phase>& phase : std::vector(phases_)) {
        refresh(*phase);
        show_if_due(*phase);
      }
    }
  }

  static void refresh(Phase& phase) {
    phase.state.seconds = std::chrono::duration<double>(Clock::now() - phase.start).count();
  }

  void show_if_due(Phase& phase) {
    const double silent = phase.state.seconds - phase.last_shown;
    switch (style_) {
      case ProgressStyle::kBar:
        if (!phases_.empty() && phases_.back().get() == &phase && silent >= kBarInterval)
          draw_bar();
        break;
      case ProgressStyle::kJson:
        if (silent >= kSilence ||
            (silent >= kJsonInterval && phase.state.done != phase.last_shown_done)) {
          show_json(phase, "progress");
        }
        break;
      default: {
        const auto advanced = static_cast<double>(phase.state.done - phase.last_shown_done);
        const bool step = phase.state.total > 0 &&
                          advanced >= kPlainShare * static_cast<double>(phase.state.total);
        const bool late = silent >= (phase.shown ? kPlainInterval : kSilence);
        if (late || (step && silent >= kPlainMinInterval && phase.state.done < phase.state.total)) {
          measure(phase);
          write_line(progress_text(phase.state));
          mark_shown(phase);
        }
      }
    }
  }

  static void measure(Phase& phase) {
    phase.state.rate = phase.meter.rate(phase.state.seconds);
    phase.state.rss_bytes = current_rss().count;
  }

  static void mark_shown(Phase& phase) {
    phase.shown = true;
    phase.last_shown = phase.state.seconds;
    phase.last_shown_done = phase.state.done;
  }

  void show_json(Phase& phase, const char* event) {
    Json line = Json::object();
    line["event"] = event;
    line["phase"] = phase.state.name;
    line["done"] = phase.state.done;
    line["total"] = phase.state.total;
    line["unit"] = phase.state.unit;
    line["seconds"] = phase.state.seconds;
    line["note"] = phase.state.note;
    line["rss_bytes"] = current_rss().count;
    write_json(line);
    mark_shown(phase);
  }

  std::string final_text(const Phase& phase) const {
    const ProgressState& state = phase.state;
    std::string text =
        format("{}: {} in {}", state.name, progress_amount(state), format_seconds(state.seconds));
    const auto advanced = static_cast<double>(state.done - phase.meter.first_done());
    const std::string rate =
        state.seconds > 0 ? progress_rate(advanced / state.seconds, state.unit) : "";
    if (!rate.empty()) text += ", " + rate;
    if (!state.note.empty()) text += ", " + state.note;
    return text;
  }

  int columns() const {
    winsize size{};
    if (::ioctl(fd_, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    const char* variable = std::getenv("COLUMNS");
    const int asked = variable != nullptr ? std::atoi(variable) : 0;
    return asked > 0 ? asked : 80;
  }

  /// Redraws the innermost phase's bar, or erases the line when no phase is left.
  void draw_bar() {
    std::string out = bar_erase();  // before bar_text: both change bar_drawn_
    out += bar_text();
    write_all_bytes(out);
  }

  std::string bar_erase() { return std::exchange(bar_drawn_, false) ? "\r\033[K" : ""; }

  std::string bar_text() {
    if (style_ != ProgressStyle::kBar || phases_.empty()) return "";
    Phase& phase = *phases_.back();
    refresh(phase);
    measure(phase);
    mark_shown(phase);
    bar_drawn_ = true;
    // One column stays free: a full line would wrap on some terminals.
    return progress_bar(phase.state, columns() - 1, unicode_, color_);
  }

  void write_line(const std::string& text) {
    std::string out = bar_erase();
    out += text + "\n";
    out += bar_text();
    write_all_bytes(out);
  }

  void write_log(LogLevel level, std::string_view message) {
    if (style_ == ProgressStyle::kJson) {
      Json line = Json::object();
      line["event"] = "log";
      line["level"] = level_word(level);
      line["message"] = std::string(message);
      write_json(line);
    } else {
      write_line(level_prefix(level, color_) + printable(message, true));
    }
  }

  void write_json(const Json& line) {
    write_all_bytes(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  }

  /// A closed or full descriptor is not worth stopping the work for.
  void write_all_bytes(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t put = ::write(fd_, bytes.data(), bytes.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(put));
    }
  }

  ProgressStyle style_;
  LogLevel level_;
  int fd_;
  bool color_ = false, unicode_ = false, bar_drawn_ = false, stopping_ = false;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::shared_ptr<Phase>> phases_;  // innermost last
  std::thread ticker_;
};

class ConsolePhase final : public ProgressPhase {
 public:
  ConsolePhase(std::shared_ptr<Console> console, std::shared_ptr<Phase> phase)
      : console_(std::move(console)), phase_(std::move(phase)) {}
  ~ConsolePhase() override { console_->end(phase_); }
  void update(std::int64_t done, std::string_view note) override {
    console_->update(*phase_, done, note);
  }

 private:
  std::shared_ptr<Console> console_;
  std::shared_ptr<Phase> phase_;
};

class ConsoleReporter final : public Reporter {
 public:
  explicit ConsoleReporter(std::shared_ptr<Console> console) : console_(std::move(console)) {}
  void log(LogLevel level, std::string_view message) override { console_->log(level, message); }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    return std::make_unique<ConsolePhase>(console_, console_->begin(name, total, unit));
  }

 private:
  std::shared_ptr<Console> console_;
};

}  // namespace

std::unique_ptr<Reporter> make_console_reporter(ProgressStyle style, LogLevel level,
                                                int descriptor) {
  return std::make_unique<ConsoleReporter>(std::make_shared<Console>(style, level, descriptor));
}

ProgressStyle parse_progress_style(std::string_view text) {
  static constexpr std::pair<std::string_view, ProgressStyle> kStyles[] = {
      {"auto", ProgressStyle::kAuto},   {"bar", ProgressStyle::kBar},
      {"plain", ProgressStyle::kPlain}, {"json", ProgressStyle::kJson},
      {"none", ProgressStyle::kNone},
  };
  for (const auto& [name, style] : kStyles) {
    if (name == text) return style;
  }
  throw Error(ErrorKind::kUsage, "--progress",
              format("is '{}', expected auto, bar, plain, json or none", text))
      .hint("--progress auto");
}

LogLevel parse_log_level(std::string_view text) {
  for (const LogLevel level :
       {LogLevel::kError, LogLevel::kWarn, LogLevel::kInfo, LogLevel::kDebug}) {
    if (text == level_word(level)) return level;
  }
  throw Error(ErrorKind::kUsage, "--log-level",
              format("is '{}', expected error, warn, info or debug", text))
      .hint("--log-level info");
}

}  // namespace espalier
