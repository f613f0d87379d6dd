// The three metric sinks of a run, kept in step: metrics.jsonl (one object per row, keys in the
// order given, NaN and infinities as null), metrics.csv (a column per name ever seen),
// events.out.tfevents.* (scalars, for TensorBoard). Each row is one write(2) per file, so a killed
// process leaves whole rows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "espalier/run/lock_internal.h"

namespace espalier::run_internal {

class MetricSinks {
 public:
  /// Opens (resuming: reopens and mends torn last rows) the files in `run_dir` at the first row.
  explicit MetricSinks(std::filesystem::path run_dir) : dir_(std::move(run_dir)) {}

  void row(std::int64_t step, const std::vector<std::pair<std::string, double>>& values);
  /// Drops rows with step >= first_dropped_step from all three.
  void truncate(std::int64_t first_dropped_step);
  void close();

 private:
  void open();
  void grow_csv(const std::vector<std::string>& new_columns);

  std::filesystem::path dir_, events_path_;
  FileDescriptor jsonl_, csv_, events_;
  std::vector<std::string> columns_;
};

/// Splits one CSV line (RFC 4180 quotes) into fields.
std::vector<std::string> split_csv_line(std::string_view line);
std::string csv_field(std::string_view text);

}  // namespace espalier::run_internal
