// The silent reporter and the token that never stops.
#include "espalier/base/reporter.h"

namespace espalier {
namespace {

struct SilentPhase final : ProgressPhase {
  void update(std::int64_t, std::string_view) override {}
};

struct SilentReporter final : Reporter {
  void log(LogLevel, std::string_view) override {}
  std::unique_ptr<ProgressPhase> phase(std::string_view, std::int64_t, std::string_view) override {
    return std::make_unique<SilentPhase>();
  }
};

struct NeverStop final : StopToken {
  bool stop_requested() const override { return false; }
};

}  // namespace

Reporter& silent_reporter() {
  static SilentReporter reporter;
  return reporter;
}

const StopToken& never_stop() {
  static const NeverStop token;
  return token;
}

}  // namespace espalier
