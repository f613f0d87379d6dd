// Appending to, growing and truncating the metric files.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/run/metrics_internal.h"
#include "espalier/run/tensorboard_events_internal.h"

namespace fs = std::filesystem;

namespace espalier::run_internal {
namespace {

constexpr std::int64_t kKeepAll = std::numeric_limits<std::int64_t>::max();

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

FileDescriptor open_append(const fs::path& path) {
  FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!fd.valid()) throw_write_error(path, errno);
  return fd;
}

/// The whole lines of a text; a torn last line (no newline) is left out.
std::vector<std::string_view> whole_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string_view::npos) break;
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

std::string read_if_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) ? read_file(path) : std::string();
}

void rewrite_if_changed(const fs::path& path, const std::string& before, const std::string& after) {
  if (before != after) write_file_atomically(path, after);
}

void truncate_jsonl(const fs::path& path, std::int64_t first_dropped_step) {
  const std::string text = read_if_there(path);
  std::string kept;
  for (const std::string_view line : whole_lines(text)) {
    try {
      const Json row = parse_json(line, path.string());
      if (row.is_object() && row.value("step", std::int64_t{0}) < first_dropped_step) {
        kept.append(line).append("\n");
      }
    } catch (const std::exception&) {
      break;  // damaged from here on
    }
  }
  rewrite_if_changed(path, text, kept);
}

void truncate_csv(const fs::path& path, std::int64_t first_dropped_step) {
  const std::string text = read_if_there(path);
  std::string kept;
  for (const std::string_view line : whole_lines(text)) {
    const bool is_header = kept.empty();
    if (is_header || std::atoll(std::string(line).c_str()) < first_dropped_step) {
      kept.append(line).append("\n");
    }
  }
  rewrite_if_changed(path, text, kept);
}

/// The event file of an earlier session of this run; the newest when there are several; "" when
/// there is none.
fs::path find_events(const fs::path& dir) {
  fs::path found;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("events.out.tfevents.") && !name.ends_with(".tmp") && it->path() > found)
      found = it->path();
  }
  return found;
}

/// TensorBoard puts the host's name where we put ours: a published folder does not tell whose
/// machine made it.
fs::path new_events_path(const fs::path& dir) {
  return dir / format("events.out.tfevents.{}.espalier", static_cast<std::int64_t>(wall_time()));
}

void truncate_events(const fs::path& path, std::int64_t first_dropped_step) {
  const std::string bytes = read_if_there(path);
  rewrite_if_changed(path, bytes, keep_events_before(bytes, first_dropped_step));
}

std::string json_row(std::int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  Json row = Json::object();
  row["step"] = step;
  for (const auto& [name, value] : values)
    row[name] = std::isfinite(value) ? Json(value) : Json(nullptr);
  return row.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += (c == '\n' || c == '\r') ? ' ' : c;  // a row stays one line
  }
  return quoted + '"';
}

std::vector<std::string> split_csv_line(std::string_view line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted && c == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += '"';
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  return fields;
}

void MetricSinks::open() {
  if (jsonl_.valid()) return;
  truncate_jsonl(dir_ / "metrics.jsonl", kKeepAll);
  truncate_csv(dir_ / "metrics.csv", kKeepAll);
  events_path_ = find_events(dir_);
  if (events_path_.empty()) events_path_ = new_events_path(dir_);
  truncate_events(events_path_, kKeepAll);

  columns_.clear();
  const std::string csv = read_if_there(dir_ / "metrics.csv");
  if (const std::size_t end = csv.find('\n'); end != std::string::npos) {
    columns_ = split_csv_line(std::string_view(csv).substr(0, end));
    columns_.erase(columns_.begin());  // "step"
  }
  jsonl_ = open_append(dir_ / "metrics.jsonl");
  csv_ = open_append(dir_ / "metrics.csv");
  events_ = open_append(events_path_);
  std::error_code ignored;
  if (fs::file_size(events_path_, ignored) == 0)
    write_all(events_.get(), event_header(wall_time()), events_path_);
}

void MetricSinks::grow_csv(const std::vector<std::string>& new_columns) {
  const fs::path path = dir_ / "metrics.csv";
  columns_.insert(columns_.end(), new_columns.begin(), new_columns.end());
  std::string grown = "step";
  for (const std::string& name : columns_) grown += "," + csv_field(name);
  grown += "\n";
  const std::string old = read_if_there(path);
  const std::vector<std::string_view> lines = whole_lines(old);
  for (std::size_t i = 1; i < lines.size(); ++i) {
    grown.append(lines[i]).append(new_columns.size(), ',').append("\n");
  }
  write_file_atomically(path, grown);
  csv_ = open_append(path);
}

void MetricSinks::row(std::int64_t step,
                      const std::vector<std::pair<std::string, double>>& values) {
  open();
  std::vector<std::string> unseen;
  for (const auto& [name, value] : values) {
    const std::string key = split_csv_line(csv_field(name)).front();  // as it reads back
    const bool known = std::find(columns_.begin(), columns_.end(), key) != columns_.end() ||
                       std::find(unseen.begin(), unseen.end(), key) != unseen.end();
    if (!known) unseen.push_back(key);
  }
  if (!unseen.empty() || columns_.empty()) grow_csv(unseen);

  std::vector<std::string> cells(columns_.size());
  for (const auto& [name, value] : values) {
    const std::string key = split_csv_line(csv_field(name)).front();
    const auto at = std::find(columns_.begin(), columns_.end(), key) - columns_.begin();
    cells[static_cast<std::size_t>(at)] = format("{}", value);
  }
  std::string line = std::to_string(step);
  for (const std::string& cell : cells) line += "," + cell;
  write_all(jsonl_.get(), json_row(step, values), dir_ / "metrics.jsonl");
  write_all(csv_.get(), line + "\n", dir_ / "metrics.csv");
  write_all(events_.get(), scalar_event(wall_time(), step, values), events_path_);
}

void MetricSinks::truncate(std::int64_t first_dropped_step) {
  close();
  truncate_jsonl(dir_ / "metrics.jsonl", first_dropped_step);
  truncate_csv(dir_ / "metrics.csv", first_dropped_step);
  const fs::path events = find_events(dir_);
  if (!events.empty()) truncate_events(events, first_dropped_step);
}

void MetricSinks::close() {
  jsonl_.reset();
  csv_.reset();
  events_.reset();
}

}  // namespace espalier::run_internal
