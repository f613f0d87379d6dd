// How the library tells its caller what it is doing. The library itself never prints: it takes a
// Reporter&. Implementations that draw bars or write JSON lines live in run/; this file only has
// the interface and silence.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>

namespace espalier {

enum class LogLevel : std::uint8_t { kError, kWarn, kInfo, kDebug };

/// One phase of work with a known or unknown (0) total. Destroying it ends the phase.
class ProgressPhase {
 public:
  virtual ~ProgressPhase() = default;
  /// Sets the amount done so far, in the phase's unit; cheap enough to call per batch. `note` is a
  /// short live figure such as "loss 3.41".
  virtual void update(std::int64_t done, std::string_view note = {}) = 0;
};

class Reporter {
 public:
  virtual ~Reporter() = default;
  virtual void log(LogLevel level, std::string_view message) = 0;
  /// Starts a phase. name: "scoring layers"; unit: "layers", "tokens", "bytes" (bytes are shown
  /// scaled).
  virtual std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                               std::string_view unit) = 0;

  void warn(std::string_view message) { log(LogLevel::kWarn, message); }
  void info(std::string_view message) { log(LogLevel::kInfo, message); }
  void debug(std::string_view message) { log(LogLevel::kDebug, message); }
  /// Warns once per cause for the life of this reporter.
  void warn_once(const std::string& cause, std::string_view message) {
    if (warned_.insert(cause).second) warn(message);
  }

 private:
  std::set<std::string> warned_;
};

/// A Reporter that says nothing, for tests and for library users who want silence.
Reporter& silent_reporter();

/// Asked by long loops at points where stopping loses nothing. `false` means: save, then throw
/// Interrupted.
class StopToken {
 public:
  virtual ~StopToken() = default;
  virtual bool stop_requested() const = 0;
};

/// Never stops.
const StopToken& never_stop();

/// Thrown after a clean stop on request (Ctrl-C); the program exits with 130.
struct Interrupted {
  std::string saved;  // what was kept and how to go on, one line; empty when nothing was
};

}  // namespace espalier
