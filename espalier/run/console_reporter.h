// Reporter for a terminal, a log file, or a program reading JSON lines.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "espalier/base/reporter.h"

namespace espalier {

enum class ProgressStyle : std::uint8_t {
  kAuto,   // bar on a terminal, plain elsewhere
  kBar,    // one redrawn line: name, bar, rate, ETA, resident memory
  kPlain,  // one line per 10 s or 5 %
  kJson,   // {"event":"progress","phase":..,"done":..,"total":..,"unit":..,"seconds":..,"note":..}
           // per line
  kNone,
};

/// Writes to `descriptor` (2 = stderr). Honours NO_COLOR. Thread-safe. Log lines never tear a bar.
std::unique_ptr<Reporter> make_console_reporter(ProgressStyle style, LogLevel level,
                                                int descriptor = 2);

/// Parses "auto", "bar", "plain", "json", "none". Error(kUsage) otherwise.
ProgressStyle parse_progress_style(std::string_view text);
LogLevel parse_log_level(std::string_view text);

/// Installs SIGINT/SIGTERM handlers once: the first signal makes the returned token ask for a stop,
/// a second one exits at once with 130. Lives for the whole process.
const StopToken& install_signal_stop();

/// Forgets the signals received so far, for programs in which the first one ends a piece of work
/// (an answer of a conversation) and not the program.
void forget_stop_signals();

}  // namespace espalier
