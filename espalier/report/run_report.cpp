// Lays out the report of one run or of several.
#include "espalier/report/run_report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/report/markup_internal.h"

namespace espalier {
namespace {

using report_internal::number_text;

constexpr std::size_t kMaxFiles = 40;
constexpr std::size_t kOverviewMetrics = 4;
constexpr double kLogSpread =
    50;  // a positive metric that spans more than this factor gets a logarithmic axis

std::string state_text(const RunRecord& run) {
  if (run.state == "finished") return "finished";
  if (run.state == "interrupted") return "interrupted";
  if (run.state == "running") return "not finished";
  return run.state.empty() ? "unknown" : run.state;
}

std::string or_dash(std::string text) { return text.empty() ? "–" : text; }

std::string memory_text(std::int64_t bytes) {
  return bytes > 0 ? to_string(Bytes{bytes}) : std::string("–");
}

std::string seconds_text(double seconds) {
  return seconds > 0 ? format_seconds(seconds) : std::string("–");
}

/// How a metric is shown: title, axis label, and the factor that makes its unit readable.
struct Look {
  std::string title, label;
  double factor = 1;
  enum class Role { kResult, kSpeed, kSetting } role = Role::kResult;
};

Look look_of(const std::string& name) {
  using Role = Look::Role;
  static const std::map<std::string, Look> kKnown{
      {"loss", {"Loss", "loss, nats per token"}},
      {"train_loss", {"Training loss", "loss, nats per token"}},
      {"eval_loss", {"Held-out loss", "loss, nats per token"}},
      {"perplexity", {"Perplexity", "perplexity"}},
      {"eval_perplexity", {"Held-out perplexity", "perplexity"}},
      {"lr", {"Learning rate", "learning rate", 1, Role::kSetting}},
      {"grad_norm", {"Gradient norm", "norm before clipping", 1, Role::kSetting}},
      {"tokens_per_second", {"Speed", "tokens/s", 1, Role::kSpeed}},
  };
  if (const auto at = kKnown.find(name); at != kKnown.end()) return at->second;
  if (name.ends_with("_bytes")) {
    const std::string stem = name.substr(0, name.size() - 6);
    return {stem, stem + ", GiB", 1.0 / (1 << 30), Role::kSpeed};
  }
  if (name.ends_with("_seconds")) {
    const std::string stem = name.substr(0, name.size() - 8);
    return {stem, stem + ", s", 1, Role::kSpeed};
  }
  return {name, name, 1};
}

bool wants_log(const std::vector<ReportSeries>& series) {
  double low = INFINITY, high = 0;
  for (const ReportSeries& s : series) {
    for (const double y : s.y) {
      if (!std::isfinite(y)) continue;
      if (y <= 0) return false;
      low = std::min(low, y), high = std::max(high, y);
    }
  }
  return high > kLogSpread * low;
}

std::vector<std::string> metric_names(const std::vector<RunRecord>& runs) {
  std::vector<std::string> names;
  for (const RunRecord& run : runs) {
    for (const ReportSeries& series : run.metrics) {
      if (std::find(names.begin(), names.end(), series.name) == names.end())
        names.push_back(series.name);
    }
  }
  return names;
}

const ReportSeries* find_metric(const RunRecord& run, const std::string& name) {
  const auto at = std::find_if(run.metrics.begin(), run.metrics.end(),
                               [&](const ReportSeries& series) { return series.name == name; });
  return at == run.metrics.end() ? nullptr : &*at;
}

double last_value(const ReportSeries& series) {
  for (auto it = series.y.rbegin(); it != series.y.rend(); ++it) {
    if (std::isfinite(*it)) return *it;
  }
  return std::nan("");
}

double first_value(const ReportSeries& series) {
  for (const double y : series.y) {
    if (std::isfinite(y)) return y;
  }
  return std::nan("");
}

void add_metrics(const std::vector<RunRecord>& runs, HtmlReport& report) {
  const std::vector<std::string> names = metric_names(runs);
  if (names.empty()) return;
  report.heading("Metrics");
  for (const std::string& name : names) {
    const Look look = look_of(name);
    ReportChart chart;
    chart.title = look.title;
    chart.x_label = "step";
    chart.y_label = look.label;
    for (const RunRecord& run : runs) {
      const ReportSeries* series = find_metric(run, name);
      if (series == nullptr) continue;
      chart.series.push_back({runs.size() > 1 ? run.name : look.title, series->x, series->y});
      for (double& y : chart.series.back().y) y *= look.factor;
    }
    chart.log_y = look.role == Look::Role::kResult && wants_log(chart.series);
    report.chart(chart);
  }
}

std::string layer_list(const std::vector<int>& layers) {
  std::string text;
  for (std::size_t i = 0; i < layers.size();) {
    std::size_t end = i;
    while (end + 1 < layers.size() && layers[end + 1] == layers[end] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += end > i ? format("{}-{}", layers[i], layers[end]) : std::to_string(layers[i]);
    i = end + 1;
  }
  return text;
}

void add_layers(const RunRecord& run, bool name_it, HtmlReport& report) {
  if (run.removed.empty() && run.scores.empty() && run.cka.empty()) return;
  report.heading(name_it ? "Layers of " + run.name : "Layers");
  if (!run.removed.empty()) {
    const std::string how = run.method.empty() ? "" : format(", chosen by {}", run.method);
    report.paragraph(format("{} of {} layers are removed{}: {}.", run.removed.size(), run.layers,
                            how, layer_list(run.removed)));
  }
  for (const ReportSeries& scores : run.scores) {
    ReportChart chart;
    chart.kind = ReportChart::Kind::kBar;
    chart.title = format("Score of each layer: {}", scores.name);
    chart.x_label = "layer";
    chart.y_label = scores.name + ", lower goes first";
    chart.series = {scores};
    chart.log_y = wants_log(chart.series);
    chart.highlight = run.removed;
    chart.highlight_name = "removed";
    report.chart(chart);
  }
  if (!run.cka.empty()) {
    ReportHeatMap map;
    map.title = "CKA between layers";
    map.x_label = "layer", map.y_label = "layer";
    map.values = run.cka;
    map.highlight = run.removed;
    map.highlight_name = "removed";
    report.heat_map(map);
  }
}

void add_files(const std::string& title, const std::vector<RunFile>& files, HtmlReport& report) {
  if (files.empty()) return;
  ReportTable table;
  table.caption = title;
  if (files.size() > kMaxFiles)
    table.caption += format(", the first {} of {}", kMaxFiles, files.size());
  table.columns = {"path", "size", "digest"};
  for (std::size_t i = 0; i < std::min(files.size(), kMaxFiles); ++i) {
    table.rows.push_back(
        {files[i].path, to_string(Bytes{files[i].bytes}), or_dash(files[i].digest)});
  }
  report.table(table);
}

std::map<std::string, std::string> flat_recipe(const std::string& text) {
  std::map<std::string, std::string> entries;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const std::size_t colon = line.find(':');
    if (colon != std::string::npos && line[0] != ' ' && line[0] != '#') {
      const std::size_t value = line.find_first_not_of(' ', colon + 1);
      entries[line.substr(0, colon)] = value == std::string::npos ? "" : line.substr(value);
    }
    at = end + 1;
  }
  return entries;
}

/// Recipe keys whose values are not the same in all runs. Only for runs of one verb: others have
/// little in common.
void add_differences(const std::vector<RunRecord>& runs, HtmlReport& report) {
  for (const RunRecord& run : runs)
    if (run.verb != runs.front().verb) return;
  std::map<std::string, std::vector<std::string>> values;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    for (const auto& [key, value] : flat_recipe(runs[r].recipe)) {
      auto& row = values[key];
      row.resize(runs.size());
      row[r] = value;
    }
  }
  ReportTable table;
  table.caption = "Settings that differ";
  table.columns = {"setting"};
  for (const RunRecord& run : runs) table.columns.push_back(run.name);
  for (auto& [key, row] : values) {
    if (std::all_of(row.begin(), row.end(),
                    [&first = row.front()](const std::string& value) { return value == first; }))
      continue;
    row.insert(row.begin(), key);
    table.rows.push_back(row);
  }
  if (!table.rows.empty()) report.table(table);
}

void add_notes(const std::vector<RunRecord>& runs, HtmlReport& report) {
  for (const RunRecord& run : runs) {
    if (run.state == "interrupted") {
      report.paragraph(
          format("{} was interrupted; the same command with --resume goes on with it.", run.name));
    } else if (run.state == "running") {
      report.paragraph(
          format("{} has not finished: it is still running, or it was killed.", run.name));
    }
    for (const std::string& problem : run.problems)
      report.paragraph(format("Left out: {}.", problem));
  }
}

std::vector<std::pair<std::string, std::string>> provenance_of(const RunRecord& run) {
  std::vector<std::pair<std::string, std::string>> facts;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) facts.emplace_back(name, value);
  };
  add("command", run.command);
  add("folder", run.folder.string());
  add("espalier", run.version + (run.commit.empty() ? "" : ", commit " + run.commit));
  add("libtorch", run.libtorch);
  add("machine", run.cpu + (run.threads > 0 ? format(", {} threads", run.threads) : ""));
  add("device", run.device);
  add("seed", run.seed);
  add("started", run.started);
  add("finished", run.finished);
  for (const auto& [name, value] : run.facts) facts.emplace_back(name, value);
  return facts;
}

/// "6.07 → 4.71" for the first two metrics that are results.
void add_metric_figures(const RunRecord& run,
                        std::vector<std::pair<std::string, std::string>>& figures) {
  int shown = 0;
  for (const ReportSeries& series : run.metrics) {
    const Look look = look_of(series.name);
    const double first = first_value(series) * look.factor, last = last_value(series) * look.factor;
    if (look.role != Look::Role::kResult || std::isnan(last) || shown == 2) continue;
    const bool several = series.y.size() > 1;
    figures.emplace_back(look.label + (several ? ", first → last" : ""),
                         several ? format("{:.3g} → {:.3g}", first, last) : format("{:.4g}", last));
    ++shown;
  }
}

HtmlReport one_run(const std::vector<RunRecord>& runs, const std::vector<SavedResult>& results,
                   const std::string& title) {
  const RunRecord& run = runs.front();
  HtmlReport report(
      !title.empty()     ? title
      : run.verb.empty() ? run.name
                         : format("{}: {}", run.verb, run.name),
      format("{}{}", state_text(run), run.started.empty() ? "" : ", started " + run.started));
  std::vector<std::pair<std::string, std::string>> figures;
  if (!run.removed.empty() && run.layers > 0) {
    figures.emplace_back(
        "layers, before and after",
        format("{} → {}", run.layers, run.layers - static_cast<std::int64_t>(run.removed.size())));
  }
  add_metric_figures(run, figures);
  if (run.wall_seconds > 0) figures.emplace_back("wall time", seconds_text(run.wall_seconds));
  if (run.peak_rss_bytes > 0)
    figures.emplace_back("peak resident memory", memory_text(run.peak_rss_bytes));
  report.figures(figures);
  add_saved_results(results, report);
  add_notes(runs, report);
  add_layers(run, false, report);
  add_metrics(runs, report);
  if (!run.inputs.empty() || !run.outputs.empty()) report.heading("Files");
  add_files("Inputs", run.inputs, report);
  add_files("Outputs", run.outputs, report);
  if (!run.recipe.empty()) {
    report.heading("Recipe");
    report.preformatted("Every option of the run, as --recipe takes it", run.recipe);
  }
  report.provenance(provenance_of(run));
  return report;
}

HtmlReport several_runs(const std::vector<RunRecord>& runs, const std::vector<SavedResult>& results,
                        const std::string& title) {
  HtmlReport report(title.empty() ? format("{} runs side by side", runs.size()) : title);
  add_saved_results(results, report);
  report.heading(results.empty() ? "Overview" : "Runs");
  report.table(run_table(runs));
  add_notes(runs, report);
  add_differences(runs, report);
  add_metrics(runs, report);
  for (const RunRecord& run : runs) add_layers(run, true, report);
  report.heading("Commands");
  ReportTable commands{"", {"run", "espalier", "started", "command"}, {}};
  for (const RunRecord& run : runs) {
    const std::string commit = run.commit.empty() ? "" : " " + run.commit.substr(0, 12);
    commands.rows.push_back(
        {run.name, or_dash(run.version + commit), or_dash(run.started), or_dash(run.command)});
  }
  report.table(commands);
  std::vector<std::pair<std::string, std::string>> folders;
  for (const RunRecord& run : runs) folders.emplace_back(run.name, run.folder.string());
  report.provenance(folders);
  return report;
}

}  // namespace

ReportTable run_table(const std::vector<RunRecord>& runs) {
  ReportTable table;
  table.columns = {"run", "verb", "state", "seed", "device", "threads", "wall time", "peak memory"};
  std::vector<std::string> names = metric_names(runs);
  std::erase_if(names,
                [](const std::string& name) { return look_of(name).role == Look::Role::kSetting; });
  if (names.size() > kOverviewMetrics) names.resize(kOverviewMetrics);
  for (const std::string& name : names) table.columns.push_back("last " + name);
  for (const RunRecord& run : runs) {
    std::vector<std::string> row{run.name,
                                 or_dash(run.verb),
                                 state_text(run),
                                 or_dash(run.seed),
                                 or_dash(run.device),
                                 run.threads > 0 ? std::to_string(run.threads) : "–",
                                 seconds_text(run.wall_seconds),
                                 memory_text(run.peak_rss_bytes)};
    for (const std::string& name : names) {
      const ReportSeries* series = find_metric(run, name);
      row.push_back(series == nullptr ? "–" : number_text(last_value(*series)));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

HtmlReport run_report(const std::vector<RunRecord>& runs, const std::vector<SavedResult>& results,
                      const std::string& title) {
  ESPALIER_ASSERT(!runs.empty());
  return runs.size() == 1 ? one_run(runs, results, title) : several_runs(runs, results, title);
}

}  // namespace espalier
