// A Reporter that writes each log line to a file and passes everything on.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string_view>

#include "espalier/base/reporter.h"
#include "espalier/run/lock_internal.h"

namespace espalier::run_internal {

class LogTee final : public Reporter {
 public:
  /// Appends to `path`, made if missing. Error(kResource) when it cannot be opened. Later write
  /// errors are ignored: a full disk is reported by the writer of the result, not by its log.
  LogTee(const std::filesystem::path& path, Reporter& next);

  void log(LogLevel level, std::string_view message) override;
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override;

 private:
  void append(std::string_view level, std::string_view message);

  Reporter& next_;
  std::mutex mutex_;
  FileDescriptor fd_;
};

}  // namespace espalier::run_internal
