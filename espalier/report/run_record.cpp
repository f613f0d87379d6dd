// Finding run folders and reading them, leniently: a report of a broken run is worth more than an
// error.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <system_error>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/report/run_report.h"

namespace fs = std::filesystem;

namespace espalier {
namespace {

constexpr std::uint64_t kMaxFile = std::uint64_t{1} << 29;
constexpr int kMaxDepth = 3;
constexpr std::size_t kMaxRuns = 200;
constexpr std::size_t kMaxMetrics = 64;  // names; a run that logs more is cut, and says so
constexpr std::int64_t kMaxLayers = 100'000;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_run(const fs::path& folder) {
  return is_there(folder / "run" / "manifest.json") || is_there(folder / "run" / "metrics.jsonl") ||
         is_there(folder / "run" / "metrics.csv");
}

void collect(const fs::path& folder, int depth, std::vector<fs::path>& found) {
  if (found.size() >= kMaxRuns) return;
  if (is_run(folder)) {
    found.push_back(folder);
    return;
  }
  if (depth == kMaxDepth) return;
  std::vector<fs::path> children;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_directory(ignored) && !it->is_symlink(ignored)) children.push_back(it->path());
  }
  std::sort(children.begin(), children.end());
  for (const fs::path& child : children) collect(child, depth + 1, found);
}

std::string text_of(const Json& json, const char* key) {
  const auto at = json.find(key);
  if (at == json.end() || at->is_null()) return {};
  return at->is_string() ? at->get<std::string>()
                         : at->dump(-1, ' ', false, Json::error_handler_t::replace);
}

double number_of(const Json& value) {
  return value.is_number() ? value.get<double>() : std::nan("");
}

std::int64_t integer_of(const Json& json, const char* key) {
  const auto at = json.find(key);
  if (at == json.end() || !at->is_number()) return 0;
  const double value = at->get<double>();
  return value > -9e18 && value < 9e18 ? static_cast<std::int64_t>(value) : 0;
}

std::vector<RunFile> files_of(const Json& json, const char* key) {
  std::vector<RunFile> files;
  const auto at = json.find(key);
  if (at == json.end() || !at->is_array()) return files;
  for (const Json& entry : *at) {
    if (entry.is_object())
      files.push_back(
          {text_of(entry, "path"), text_of(entry, "digest"), integer_of(entry, "bytes")});
  }
  return files;
}

void read_manifest(const Json& json, RunRecord& run) {
  run.verb = text_of(json, "verb");
  run.command = text_of(json, "command");
  run.version = text_of(json, "version");
  run.commit = text_of(json, "commit");
  run.libtorch = text_of(json, "libtorch");
  run.device = text_of(json, "device");
  run.state = text_of(json, "state");
  run.started = text_of(json, "started");
  run.finished = text_of(json, "finished");
  run.recipe = text_of(json, "recipe");
  run.seed = text_of(json, "seed");
  run.threads = integer_of(json, "threads");
  run.peak_rss_bytes = integer_of(json, "peak_rss_bytes");
  run.inputs = files_of(json, "inputs");
  run.outputs = files_of(json, "outputs");
  if (const auto at = json.find("wall_seconds"); at != json.end() && at->is_number())
    run.wall_seconds = at->get<double>();
  if (const auto at = json.find("host"); at != json.end() && at->is_object())
    run.cpu = text_of(*at, "cpu");
  if (const auto at = json.find("facts"); at != json.end() && at->is_object()) {
    for (const auto& item : at->items())
      run.facts.emplace_back(item.key(), text_of(*at, item.key().c_str()));
  }
}

/// Series in the order in which their names first appear.
class MetricTable {
 public:
  void add(const std::string& name, double step, double value) {
    auto at = index_.find(name);
    if (at == index_.end()) {
      if (series.size() == kMaxMetrics) {
        cut = true;
        return;
      }
      at = index_.emplace(name, series.size()).first;
      series.push_back({name, {}, {}});
    }
    series[at->second].x.push_back(step);
    series[at->second].y.push_back(value);
  }
  std::vector<ReportSeries> series;
  bool cut = false;

 private:
  std::map<std::string, std::size_t> index_;
};

/// Calls `row` for each whole line.
void for_each_line(std::string_view text, const std::function<void(std::string_view)>& row) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string_view::npos) return;  // torn
    row(text.substr(at, end - at));
    at = end + 1;
  }
}

void read_metrics_jsonl(const fs::path& path, MetricTable& table) {
  for_each_line(read_file(path, kMaxFile), [&](std::string_view line) {
    const Json row = parse_json(line, path.string());
    if (!row.is_object() || !row.contains("step")) return;
    const double step = number_of(row["step"]);
    for (const auto& item : row.items()) {
      const bool value = item.value().is_number() || item.value().is_null();
      if (item.key() != "step" && value) table.add(item.key(), step, number_of(item.value()));
    }
  });
}

void read_metrics_csv(const fs::path& path, MetricTable& table) {
  std::vector<std::string> names;
  for_each_line(read_file(path, kMaxFile), [&](std::string_view line) {
    std::vector<std::string> cells(1);
    bool quoted = false;
    for (std::size_t i = 0; i < line.size(); ++i) {
      if (line[i] == '"') {
        if (quoted && i + 1 < line.size() && line[i + 1] == '"')
          cells.back() += line[i++];
        else
          quoted = !quoted;
      } else if (line[i] == ',' && !quoted) {
        cells.emplace_back();
      } else {
        cells.back() += line[i];
      }
    }
    if (names.empty()) {
      names = std::move(cells);
      return;
    }
    for (std::size_t c = 1; c < std::min(cells.size(), names.size()); ++c) {
      if (!cells[c].empty())
        table.add(names[c], std::strtod(cells[0].c_str(), nullptr),
                  std::strtod(cells[c].c_str(), nullptr));
    }
  });
}

std::vector<double> numbers_of(const Json& list) {
  std::vector<double> values;
  if (list.is_array()) {
    for (const Json& value : list) values.push_back(number_of(value));
  }
  return values;
}

std::vector<int> indices_of(const Json& json, const char* key) {
  std::vector<int> indices;
  const auto at = json.find(key);
  if (at == json.end()) return indices;
  for (const double value : numbers_of(*at)) {
    if (value >= 0 && value < static_cast<double>(kMaxLayers))
      indices.push_back(static_cast<int>(value));
  }
  return indices;
}

void read_scores(const Json& json, const char* key, RunRecord& run) {
  const auto at = json.find(key);
  if (at == json.end() || !at->is_object()) return;
  for (const auto& item : at->items()) {
    const bool known =
        std::any_of(run.scores.begin(), run.scores.end(),
                    [&](const ReportSeries& series) { return series.name == item.key(); });
    std::vector<double> values = numbers_of(item.value());
    if (!known && !values.empty()) run.scores.push_back({item.key(), {}, std::move(values)});
  }
}

void read_pruning(const Json& json, RunRecord& run) {
  run.method = text_of(json, "method");
  if (run.method.empty()) run.method = text_of(json, "metric");
  run.layers = std::clamp<std::int64_t>(integer_of(json, "layers_before"), 0, kMaxLayers);
  run.removed = indices_of(json, "removed");
  if (run.layers == 0)
    run.layers = static_cast<std::int64_t>(indices_of(json, "kept").size() + run.removed.size());
  if (run.removed.empty() && run.layers > 0) {
    const std::vector<int> kept = indices_of(json, "kept");
    const std::set<int> stays(kept.begin(), kept.end());
    for (int layer = 0; layer < run.layers; ++layer) {
      if (!stays.empty() && !stays.contains(layer)) run.removed.push_back(layer);
    }
  }
  read_scores(json, "scores", run);
}

void read_scores_file(const Json& json, RunRecord& run) {
  if (run.layers == 0)
    run.layers = std::clamp<std::int64_t>(integer_of(json, "n_layers"), 0, kMaxLayers);
  read_scores(json, "metrics", run);
  if (const auto at = json.find("cka"); at != json.end() && at->is_array()) {
    for (const Json& row : *at) run.cka.push_back(numbers_of(row));
  }
}

}  // namespace

std::vector<fs::path> find_runs(const fs::path& path) {
  fs::path start = path.lexically_normal();
  if (!start.has_filename() && start.has_parent_path()) start = start.parent_path();
  if (!is_there(start) && is_there(start.string() + ".partial"))
    start = start.string() + ".partial";
  if (!is_there(start)) {
    throw Error(ErrorKind::kInput, path.string(), "does not exist")
        .hint("name a folder that a verb wrote with --out");
  }
  if (!fs::is_directory(start)) {
    throw Error(ErrorKind::kInput, path.string(), "is a file, expected a run folder")
        .hint("name a folder that a verb wrote with --out");
  }
  std::error_code ignored;
  const fs::path above = fs::weakly_canonical(start, ignored);
  if (!is_run(start) && above.filename() == "run" && is_run(above.parent_path())) {
    const bool named = start.has_parent_path() && start.filename() == "run";
    return {named ? start.parent_path() : above.parent_path()};
  }
  std::vector<fs::path> found;
  collect(start, 0, found);
  if (found.empty()) {
    throw Error(ErrorKind::kInput, path.string(),
                "holds no run: there is no run/manifest.json in it or below")
        .hint("name a folder that a verb wrote with --out");
  }
  return found;
}

RunRecord load_run(const fs::path& folder) {
  RunRecord run;
  run.folder = folder;
  run.name = folder.filename().string();
  const auto attempt = [&](const fs::path& path, const std::function<void(const fs::path&)>& read) {
    if (!is_there(path)) return;
    try {
      read(path);
    } catch (const std::exception& error) {
      run.problems.emplace_back(error.what());
    }
  };
  const auto object = [&](const fs::path& path, void (*read)(const Json&, RunRecord&)) {
    attempt(path, [&](const fs::path& file) {
      const Json json = read_json_file(file, kMaxFile);
      if (!json.is_object()) throw Error(ErrorKind::kInput, file.string(), "is not a JSON object");
      read(json, run);
    });
  };
  object(folder / "run" / "manifest.json", read_manifest);
  object(folder / "espalier_pruning.json", read_pruning);
  object(folder / "scores.json", read_scores_file);
  object(folder / "run" / "scores.json", read_scores_file);
  MetricTable table;
  attempt(folder / "run" / "metrics.jsonl",
          [&](const fs::path& path) { read_metrics_jsonl(path, table); });
  if (table.series.empty()) {
    attempt(folder / "run" / "metrics.csv",
            [&](const fs::path& path) { read_metrics_csv(path, table); });
  }
  if (table.cut) run.problems.push_back(format("only the first {} metrics are shown", kMaxMetrics));
  run.metrics = std::move(table.series);
  return run;
}

void name_runs(std::vector<RunRecord>& runs) {
  for (RunRecord& run : runs) run.name = run.folder.filename().string();
  for (int level = 0; level < 8; ++level) {
    std::map<std::string, int> uses;
    for (const RunRecord& run : runs) ++uses[run.name];
    fs::path above;
    for (RunRecord& run : runs) {
      if (uses[run.name] < 2) continue;
      above = run.folder;
      const auto parts = std::count(run.name.begin(), run.name.end(), '/') + 1;
      for (std::ptrdiff_t i = 0; i < parts; ++i) above = above.parent_path();
      if (!above.filename().empty()) run.name = above.filename().string() + "/" + run.name;
    }
  }
}

}  // namespace espalier
