// Reads result documents and lays them out; see saved_results.h.
#include "espalier/report/saved_results.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/report/markup_internal.h"

namespace fs = std::filesystem;

namespace espalier {
namespace {

using report_internal::number_text;

constexpr std::uint64_t kMaxDocument = 64ull << 20;
constexpr std::size_t kMaxFigures = 6;
constexpr double kLogSpread =
    50;  // a metric that spans more than this factor gets a logarithmic axis

std::string text_of(const Json& json, const char* key) {
  const auto at = json.is_object() ? json.find(key) : json.end();
  return at != json.end() && at->is_string() ? at->get<std::string>() : std::string();
}

double number_of(const Json& json, const std::string& key) {
  const auto at = json.find(key);
  return at != json.end() && at->is_number() ? at->get<double>() : std::nan("");
}

/// "out/demo/pruned/" is "pruned".
std::string last_component(const std::string& path) {
  fs::path p = fs::path(path).lexically_normal();
  if (!p.has_filename()) p = p.parent_path();
  return p.filename().empty() ? path : p.filename().string();
}

/// results: {task: {metric: value, metric_stderr: value, n: count, ...}}
std::vector<SavedScore> scores_of(const Json& document) {
  std::vector<SavedScore> scores;
  const auto results = document.find("results");
  if (results == document.end() || !results->is_object()) return scores;
  for (const auto& [task, metrics] : results->items()) {
    if (!metrics.is_object()) continue;
    const double count = number_of(metrics, "n");
    for (const auto& [metric, value] : metrics.items()) {
      const bool is_score = metrics.contains(metric + "_stderr");
      if (!is_score || !value.is_number()) continue;
      scores.push_back({task, metric, value.get<double>(), number_of(metrics, metric + "_stderr"),
                        std::isfinite(count) ? static_cast<std::int64_t>(count) : 0});
    }
  }
  return scores;
}

/// The parts of "config" that a score depends on.
std::string settings_of(const Json& document) {
  const auto config = document.find("config");
  if (config == document.end() || !config->is_object()) return {};
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  for (const char* key : {"seq_len", "stride", "max_segments", "temperature", "seed"}) {
    const double value = number_of(*config, key);
    if (std::isfinite(value)) add(format("{} {}", key, number_text(value)));
  }
  if (const auto bos = config->find("add_bos"); bos != config->end() && bos->is_boolean())
    add(bos->get<bool>() ? "BOS" : "no BOS");
  if (const std::string dtype = text_of(*config, "dtype"); !dtype.empty()) add(dtype);
  return text;
}

struct MetricTable {
  std::string task, metric;
  std::vector<std::pair<std::string, double>> values;  // model name, value
};

std::vector<MetricTable> by_metric(const std::vector<SavedResult>& results) {
  std::vector<MetricTable> tables;
  for (const SavedResult& result : results) {
    for (const SavedScore& score : result.scores) {
      auto at = std::find_if(tables.begin(), tables.end(), [&](const MetricTable& table) {
        return table.task == score.task && table.metric == score.metric;
      });
      if (at == tables.end()) at = tables.insert(tables.end(), {score.task, score.metric, {}});
      at->values.emplace_back(result.name, score.value);
    }
  }
  return tables;
}

/// The first metric of each task, as large figures.
void add_figures(const std::vector<MetricTable>& tables, HtmlReport& report) {
  std::vector<std::pair<std::string, std::string>> figures;
  std::string task;
  for (const MetricTable& table : tables) {
    if (std::exchange(task, table.task) == table.task) continue;
    for (const auto& [name, value] : table.values) {
      if (figures.size() < kMaxFigures)
        figures.emplace_back(format("{}, {}", table.metric, name), format("{:.4g}", value));
    }
  }
  report.figures(figures);
}

/// The first metric of each task, when several models have it; the table has the others.
void add_charts(const std::vector<MetricTable>& tables, HtmlReport& report) {
  std::string task;
  for (const MetricTable& table : tables) {
    if (std::exchange(task, table.task) == table.task || table.values.size() < 2) continue;
    ReportChart chart;
    chart.kind = ReportChart::Kind::kBar;
    chart.title = format("{}: {}", table.task, table.metric);
    chart.x_label = "model";
    chart.y_label = table.metric;
    chart.series.push_back({table.metric, {}, {}});
    double low = INFINITY, high = -INFINITY;
    for (const auto& [name, value] : table.values) {
      chart.series[0].x.push_back(static_cast<double>(chart.x_names.size()));
      chart.series[0].y.push_back(value);
      chart.x_names.push_back(name);
      low = std::min(low, value), high = std::max(high, value);
    }
    chart.log_y = low > 0 && high > kLogSpread * low;
    report.chart(chart);
  }
}

void add_score_table(const std::vector<SavedResult>& results, HtmlReport& report) {
  ReportTable table{"All scores, ± one standard error",
                    {"model", "task", "metric", "value", "±", "n", "settings"},
                    {}};
  for (const SavedResult& result : results) {
    for (const SavedScore& score : result.scores) {
      table.rows.push_back({result.name, score.task, score.metric, number_text(score.value),
                            number_text(score.standard_error),
                            score.count > 0 ? std::to_string(score.count) : "–", result.settings});
    }
  }
  report.table(table);
}

void add_texts(const std::vector<SavedResult>& results, HtmlReport& report) {
  const auto wrote = [](const SavedResult& result) { return !result.text.empty(); };
  if (std::none_of(results.begin(), results.end(), wrote)) return;
  report.heading("What the models write");
  for (const SavedResult& result : results) {
    if (!wrote(result)) continue;
    const std::string settings = result.settings.empty() ? "" : format(" ({})", result.settings);
    report.preformatted(result.name + settings,
                        result.prompt.empty() ? result.text : result.prompt + " ▸" + result.text);
  }
}

}  // namespace

SavedResult load_saved_result(const fs::path& file) {
  const Json document = read_json_file(file, kMaxDocument);
  const std::string schema = text_of(document, "schema");
  constexpr std::string_view kPrefix = "espalier.";
  if (!schema.starts_with(kPrefix)) {
    throw Error(ErrorKind::kInput, file.string(),
                "is not a result of espalier (no \"schema\": \"espalier...\")")
        .hint("give files written with --save-json, or run folders");
  }
  SavedResult result;
  result.file = file;
  result.verb = schema.substr(kPrefix.size(), schema.find('/') - kPrefix.size());
  result.model = text_of(document, "model");
  result.name = last_component(result.model.empty() ? file.stem().string() : result.model);
  result.scores = scores_of(document);
  result.settings = settings_of(document);
  if (result.verb == "generate") {
    result.text = text_of(document, "text");
    result.prompt = text_of(document, "prompt");
  }
  return result;
}

void add_saved_results(const std::vector<SavedResult>& results, HtmlReport& report) {
  const std::vector<MetricTable> tables = by_metric(results);
  if (!tables.empty()) {
    report.heading("Scores");
    add_figures(tables, report);
    add_charts(tables, report);
    add_score_table(results, report);
  }
  add_texts(results, report);
}

}  // namespace espalier
