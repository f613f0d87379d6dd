// See sweep_report.h.
#include "espalier/methods/layer_pruning/sweep_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/methods/layer_pruning/model_card.h"
#include "espalier/report/html_report.h"
#include "espalier/run/build_info.h"
#include "espalier/surgery/layer_plan.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;
using Kind = SweepCell::Kind;

std::string metric_of(const SweepCell& cell) {
  return cell.kind == Kind::kDense     ? "dense"
         : cell.kind == Kind::kScratch ? "scratch"
                                       : cell.metric;
}

std::string perplexity_text(double value, double error) {
  if (value <= 0) return "-";
  if (value >= 1e5) return format("{:.3g}", value);
  return error > 0 ? format("{:.2f} ± {:.2f}", value, error) : format("{:.2f}", value);
}

std::vector<std::string> tasks_of(const SweepOutcome& outcome) {
  std::set<std::string> names;
  for (const SweepRow& row : outcome.rows)
    if (row.result)
      for (const auto& [task, value] : row.result->accuracy) names.insert(task);
  return {names.begin(), names.end()};
}

double mean_accuracy(const SweepResult& result) {
  double sum = 0;
  for (const auto& [task, value] : result.accuracy) sum += value;
  return result.accuracy.empty() ? 0 : sum / static_cast<double>(result.accuracy.size());
}

bool has_numbers(const SweepRow& row) { return row.result && row.result->failed.empty(); }

bool better(const SweepResult& a, const SweepResult& b) {
  if (a.perplexity > 0 && b.perplexity > 0) return a.perplexity < b.perplexity;
  return mean_accuracy(a) > mean_accuracy(b);
}

/// The best row of each removal and recovery, in the order of the table.
std::vector<const SweepRow*> best_rows(const SweepOutcome& outcome) {
  std::map<std::tuple<std::int64_t, std::string, std::string>, const SweepRow*> best;
  std::vector<std::tuple<std::int64_t, std::string, std::string>> order;
  for (const SweepRow& row : outcome.rows) {
    if (!has_numbers(row)) continue;
    const auto key = std::make_tuple(row.cell.remove, metric_of(row.cell), row.cell.recovery.name);
    const auto [place, fresh] = best.emplace(key, &row);
    if (fresh) {
      order.push_back(key);
    } else if (better(*row.result, *place->second->result)) {
      place->second = &row;
    }
  }
  std::vector<const SweepRow*> rows;
  for (const auto& key : order) rows.push_back(best.at(key));
  return rows;
}

std::vector<std::string> columns_for(const std::vector<std::string>& tasks) {
  std::vector<std::string> columns{"cut",      "metric", "layers removed",
                                   "recovery", "lr",     "perplexity"};
  columns.insert(columns.end(), tasks.begin(), tasks.end());
  for (const char* name : {"training s", "trained", "size", "note"}) columns.emplace_back(name);
  return columns;
}

std::vector<std::string> cells_of(const SweepRow& row, const std::vector<std::string>& tasks) {
  const SweepCell& cell = row.cell;
  std::vector<std::string> out{format("{}", cell.remove), metric_of(cell),
                               cell.removed.empty() ? "-" : layer_set_text(cell.removed),
                               cell.recovery.name,
                               cell.recovery.trains() ? format("{:.0e}", cell.lr) : "-"};
  const bool numbers = has_numbers(row);
  out.push_back(numbers ? perplexity_text(row.result->perplexity, row.result->perplexity_stderr)
                        : "-");
  for (const std::string& task : tasks) {
    const bool known = numbers && row.result->accuracy.contains(task);
    out.push_back(known ? format("{:.4f}", row.result->accuracy.at(task)) : "-");
  }
  const bool trained = numbers && cell.recovery.trains();
  out.push_back(trained ? format("{:.1f}", row.result->heal_seconds) : "-");
  out.push_back(trained ? format_count(row.result->trainable_parameters) : "-");
  out.push_back(numbers ? to_string(Bytes{static_cast<std::int64_t>(row.result->bytes)}) : "-");
  std::string note = row.shared_with.empty() ? "" : format("same layers as {}", row.shared_with);
  if (!cell.refused.empty()) note = "refused: " + cell.refused;
  if (row.result && !row.result->failed.empty()) note = "failed: " + row.result->failed;
  if (!row.result && cell.refused.empty()) note = "not run yet";
  out.push_back(note);
  return out;
}

/// One line per metric: kept layers against perplexity, for one recovery (best rates).
void add_metric_chart(const SweepOutcome& outcome, const std::vector<const SweepRow*>& best,
                      const std::string& recovery, HtmlReport& report) {
  ReportChart chart;
  chart.title = recovery == "none" ? std::string("Perplexity of pruned models, not trained")
                                   : format("Perplexity after {}", recovery);
  chart.x_label = "layers kept";
  chart.y_label = "perplexity";
  chart.log_y = true;
  std::map<std::string, std::map<double, double>> lines;
  for (const SweepRow* row : best) {
    if (row->cell.kind == Kind::kDense || row->result->perplexity <= 0) continue;
    if (row->cell.kind == Kind::kPruned && row->cell.recovery.name != recovery) continue;
    if (row->cell.kind == Kind::kScratch && recovery == "none") continue;
    lines[metric_of(row->cell)][static_cast<double>(outcome.layers - row->cell.remove)] =
        row->result->perplexity;
  }
  for (const SweepRow* row : best) {
    if (row->cell.kind != Kind::kDense || row->result->perplexity <= 0) continue;
    for (auto& [metric, line] : lines)
      if (metric != "scratch") line[static_cast<double>(outcome.layers)] = row->result->perplexity;
  }
  for (const auto& [metric, line] : lines) {
    ReportSeries series{metric, {}, {}};
    for (const auto& [kept, perplexity] : line) {
      series.x.push_back(kept);
      series.y.push_back(perplexity);
    }
    chart.series.push_back(std::move(series));
  }
  if (!chart.series.empty()) report.chart(chart);
}

/// Seconds of training against perplexity, one line per recovery.
void add_time_chart(const std::vector<const SweepRow*>& best, HtmlReport& report) {
  std::map<std::string, std::multimap<double, double>> points;
  for (const SweepRow* row : best) {
    if (row->cell.recovery.trains() && row->result->perplexity > 0) {
      points[row->cell.kind == Kind::kScratch ? "scratch" : row->cell.recovery.name].emplace(
          row->result->heal_seconds, row->result->perplexity);
    }
  }
  if (points.empty()) return;
  ReportChart chart;
  chart.title = "What training time bought";
  chart.x_label = "training, s";
  chart.y_label = "perplexity";
  chart.log_y = true;
  for (const auto& [recovery, list] : points) {
    ReportSeries series{recovery, {}, {}};
    for (const auto& [seconds, perplexity] : list) {
      series.x.push_back(seconds);
      series.y.push_back(perplexity);
    }
    chart.series.push_back(std::move(series));
  }
  report.chart(chart);
}

void write_report(const SweepRequest& request, const SweepOutcome& outcome, const fs::path& path) {
  HtmlReport report(format("Pruning sweep of {}", model_name(request.model)),
                    format("{} layers", outcome.layers));
  std::int64_t finished = 0;
  for (const SweepRow& row : outcome.rows) finished += row.result ? 1 : 0;
  report.figures({{"cells", format("{} of {}", finished, outcome.rows.size())}});
  if (!outcome.complete) report.paragraph("Not finished: cells without numbers are still to run.");
  const auto best = best_rows(outcome);
  std::set<std::string> recoveries;
  for (const SweepRow* row : best)
    if (row->cell.kind == Kind::kPruned) recoveries.insert(row->cell.recovery.name);
  report.heading("Perplexity by layers kept");
  for (const std::string& recovery : recoveries) add_metric_chart(outcome, best, recovery, report);
  report.heading("Time");
  add_time_chart(best, report);
  report.heading("Best learning rate of each recovery");
  const SweepTable rates = best_rates(outcome);
  report.table({"", rates.columns, rates.rows});
  report.heading("All cells");
  const SweepTable table = sweep_table(outcome);
  report.table({"", table.columns, table.rows});
  report.provenance({{"model", request.model.string()},
                     {"calibration", outcome.calibration.file},
                     {"calibration sha256", outcome.calibration.sha256},
                     {"samples", format("{} x {} tokens, no BOS", outcome.calibration.samples,
                                        outcome.calibration.seq_len)},
                     {"seed", format("{}", request.scoring.seed)},
                     {"settings", request.settings},
                     {"espalier", build_info().version}});
  report.write(path);
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace

SweepTable sweep_table(const SweepOutcome& outcome) {
  const auto tasks = tasks_of(outcome);
  SweepTable table{columns_for(tasks), {}};
  for (const SweepRow& row : outcome.rows) table.rows.push_back(cells_of(row, tasks));
  return table;
}

SweepTable best_rates(const SweepOutcome& outcome) {
  const auto tasks = tasks_of(outcome);
  SweepTable table{columns_for(tasks), {}};
  for (const SweepRow* row : best_rows(outcome)) table.rows.push_back(cells_of(*row, tasks));
  return table;
}

std::string sweep_json(const SweepRequest& request, const SweepOutcome& outcome) {
  Json json;
  json["schema"] = "espalier.sweep/1";
  json["model"] = request.model.string();
  json["layers"] = outcome.layers;
  json["complete"] = outcome.complete;
  json["computed"] = outcome.computed;
  json["calibration"] = nullptr;
  if (!outcome.calibration.file.empty()) {
    json["calibration"] = {
        {"file", outcome.calibration.file},       {"sha256", outcome.calibration.sha256},
        {"samples", outcome.calibration.samples}, {"seq_len", outcome.calibration.seq_len},
        {"seed", outcome.calibration.seed},       {"add_bos", false}};
  }
  json["score_seconds"] = outcome.score_seconds;
  json["rows"] = Json::array();
  for (const SweepRow& row : outcome.rows) {
    Json entry = parse_json(
        cell_to_json(row.cell, row.result.value_or(SweepResult{}), request.settings), "cell");
    entry.erase("schema");
    entry.erase("settings");
    entry["state"] = !row.cell.refused.empty()     ? "refused"
                     : !row.result                 ? "missing"
                     : !row.result->failed.empty() ? "failed"
                                                   : "done";
    if (!row.cell.refused.empty()) entry["refused"] = row.cell.refused;
    if (!row.shared_with.empty()) entry["shared_with"] = row.shared_with;
    json["rows"].push_back(std::move(entry));
  }
  return dump_json(json);
}

void write_sweep_files(const SweepRequest& request, const SweepOutcome& outcome,
                       const RunFolder& run) {
  const SweepTable table = sweep_table(outcome);
  std::string csv;
  const auto line = [&](const std::vector<std::string>& fields) {
    for (std::size_t i = 0; i < fields.size(); ++i)
      csv += (i == 0 ? "" : ",") + csv_field(fields[i]);
    csv += "\n";
  };
  line(table.columns);
  for (const auto& row : table.rows) line(row);
  write_file_atomically(run.folder() / "sweep.csv", csv);
  write_file_atomically(run.folder() / "sweep.json", sweep_json(request, outcome));
  fs::create_directories(run.run_dir());
  write_report(request, outcome, run.run_dir() / "report.html");
}

}  // namespace espalier::layer_pruning
