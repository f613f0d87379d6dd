// run/log.txt: "2026-01-31T23:59:59Z warn  message", one line per line of the message, phases with
// their duration.
#include <functional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/run/log_tee_internal.h"
#include "espalier/run/manifest_internal.h"

namespace espalier::run_internal {
namespace {

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      return "debug";
  }
  return "info";
}

/// Passes updates on and notes in the log how long the phase took.
class LoggedPhase final : public ProgressPhase {
 public:
  LoggedPhase(std::unique_ptr<ProgressPhase> next, std::function<void(std::int64_t, double)> at_end)
      : next_(std::move(next)), at_end_(std::move(at_end)) {}
  ~LoggedPhase() override {
    next_.reset();
    try {
      at_end_(done_, watch_.seconds());
    } catch (const std::exception&) {
      // Out of memory while unwinding: the log misses a line.
    }
  }
  void update(std::int64_t done, std::string_view note) override {
    done_ = done;
    next_->update(done, note);
  }

 private:
  std::unique_ptr<ProgressPhase> next_;
  std::function<void(std::int64_t, double)> at_end_;
  std::int64_t done_ = 0;
  Stopwatch watch_;
};

}  // namespace

LogTee::LogTee(const std::filesystem::path& path, Reporter& next)
    : next_(next), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  if (!fd_.valid()) throw_write_error(path, errno);
}

void LogTee::append(std::string_view level, std::string_view message) {
  const std::string prefix = format("{} {:<6}", utc_text(std::chrono::system_clock::now()), level);
  std::string text;
  for (;;) {
    const std::size_t end = message.find('\n');
    text.append(prefix).append(message.substr(0, end)).append("\n");
    if (end == std::string_view::npos) break;
    message.remove_prefix(end + 1);
  }
  const std::lock_guard lock(mutex_);
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t put = ::write(fd_.get(), rest.data(), rest.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return;
    rest.remove_prefix(static_cast<std::size_t>(put));
  }
}

void LogTee::log(LogLevel level, std::string_view message) {
  append(level_name(level), message);
  next_.log(level, message);
}

std::unique_ptr<ProgressPhase> LogTee::phase(std::string_view name, std::int64_t total,
                                             std::string_view unit) {
  auto at_end = [this, name = std::string(name), unit = std::string(unit)](std::int64_t done,
                                                                           double seconds) {
    const std::string amount =
        unit == "bytes" ? to_string(Bytes{done}) : format_count(done) + " " + unit;
    append("phase", format("{}: {} in {}", name, amount, format_seconds(seconds)));
  };
  return std::make_unique<LoggedPhase>(next_.phase(name, total, unit), std::move(at_end));
}

}  // namespace espalier::run_internal
