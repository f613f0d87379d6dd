// Files, report and tables of a redundancy measurement.
#include "espalier/methods/layer_pruning/redundancy_report.h"

#include <algorithm>
#include <cmath>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/methods/layer_pruning/model_card.h"
#include "espalier/report/html_report.h"
#include "espalier/run/build_info.h"
#include "espalier/similarity/similarity_charts.h"
#include "espalier/surgery/layer_plan.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;

struct MetricText {
  const char* title;
  const char* axis;
  const char* meaning;
};

MetricText text_of(const std::string& metric) {
  if (metric == "bi")
    return {"Block influence (bi)", "1 - cosine",
            "How much the layer turns its input, averaged over tokens. Low: little to lose."};
  if (metric == "angular")
    return {
        "Angular distance (angular)", "distance / pi",
        "How far the run of layers that starts here turns the last token. Low: the run can go."};
  if (metric == "ppl" || metric == "ppl+")
    return {"Perplexity without the layer (ppl)", "perplexity",
            "Leave-one-out: the model run without this one layer. Low: little is lost."};
  if (metric == "cka_adj")
    return {"Change of representation (cka_adj)", "1 - CKA",
            "Unbiased CKA of the layer's input and output over tokens. Low: the two are alike."};
  if (metric == "mag_l1")
    return {"Magnitude (mag_l1)", "sum of |w|",
            "Size of the layer's weights, norms included. Says nothing about the data."};
  if (metric == "mag_l2")
    return {"Squared magnitude (mag_l2)", "sum of w^2",
            "Size of the layer's weights, norms included. Says nothing about the data."};
  if (metric == "cos_block")
    return {"Change over a run (cos_block)", "1 - cosine",
            "How far the run of layers that starts here turns the residual stream, averaged over "
            "all tokens. Low: the run can go."};
  if (metric == "taylor" || metric == "taylor+")
    return {"First-order loss change (taylor)", "sum of |w dL/dw|",
            "What the loss would change by, to first order, if the layer's weights became zero."};
  if (metric == "gradnorm")
    return {"Gradient norm (gradnorm)", "norm of dL/dw",
            "How steeply the loss depends on the layer's weights. Low: little to lose."};
  if (metric == "sglp")
    return {"Gradient norm inside segments (sglp)", "norm of dL/dw",
            "Layers are segmented by CKA; of each segment those with the largest gradient stay."};
  if (metric == "sleb")
    return {"Place in the greedy order (sleb)", "place",
            "Layers in the order in which their removal costs least, given those already gone."};
  if (metric == "reverse")
    return {"Reverse order (reverse)", "layers after this one", "The last layers go first."};
  return {"Random order (random)", "rank", "A seeded permutation, for comparison."};
}

std::string number(double value) {
  if (std::isnan(value)) return "";
  const double size = std::abs(value);
  if (size >= 1e5) return format("{:.3g}", value);
  return size >= 100 ? format("{:.1f}", value)
         : size >= 1 ? format("{:.3f}", value)
                     : format("{:.4f}", value);
}

std::vector<std::string> layer_names(std::int64_t layers) {
  std::vector<std::string> names;
  for (std::int64_t layer = 0; layer < layers; ++layer) names.push_back(format("{}", layer));
  return names;
}

std::vector<int> as_ints(const std::vector<std::int64_t>& layers) {
  return {layers.begin(), layers.end()};
}

/// Positive values whose largest hides the others on a linear axis.
bool spreads_far(std::vector<double> values) {
  std::erase_if(values, [](double value) { return std::isnan(value); });
  if (values.empty() || *std::min_element(values.begin(), values.end()) <= 0) return false;
  std::sort(values.begin(), values.end());
  return values.back() > 10 * values[values.size() / 2];
}

void add_metric_chart(const RedundancyResult& result, const PruneChoice& choice,
                      HtmlReport& report) {
  const std::vector<double>& values = result.scores.metrics.at(choice.method);
  const MetricText text = text_of(choice.method);
  ReportChart chart;
  chart.kind = ReportChart::Kind::kBar;
  chart.title = text.title;
  chart.x_label =
      scores_runs(choice.method) ? format("first layer of a run of {}", result.remove) : "layer";
  chart.y_label = text.axis;
  chart.log_y =
      spreads_far(values);  // the first layers are often worth thousands of times the others
  chart.x_names = layer_names(result.scores.layers);
  ReportSeries series{choice.method, {}, values};
  for (std::size_t layer = 0; layer < values.size(); ++layer)
    series.x.push_back(static_cast<double>(layer));
  chart.series.push_back(std::move(series));
  // For runs one bar stands for a whole run: the best start is marked.
  chart.highlight = scores_runs(choice.method)
                        ? std::vector<int>{static_cast<int>(choice.removed.front())}
                        : as_ints(choice.removed);
  chart.highlight_name =
      scores_runs(choice.method) ? "start of the chosen run" : "would be removed";
  report.chart(chart);
  report.paragraph(format("{} Would remove {}.", text.meaning, layer_set_text(choice.removed)));
}

void add_choices(const RedundancyResult& result, HtmlReport& report) {
  ReportTable table;
  const bool measured = result.scores.dense_perplexity > 0;
  table.columns = {"metric", "layers it would remove"};
  if (measured) table.columns.push_back("calibration perplexity without them");
  for (const PruneChoice& choice : result.choices) {
    table.rows.push_back({choice.method, layer_set_text(choice.removed)});
    if (measured) table.rows.back().push_back(number(choice.perplexity));
  }
  report.heading(format("What each metric would remove, {} of {} layers", result.remove,
                        result.scores.layers));
  report.table(table);
  if (measured) {
    report.paragraph(
        format("The whole model has perplexity {} on the same text. Perplexity right after the "
               "removal is not the whole story: "
               "the paper's claim for reverse is accuracy after fine-tuning.",
               number(result.scores.dense_perplexity)));
  }
}

/// How perplexity grows as sleb takes layer after layer.
void add_greedy_search(const RedundancyResult& result, HtmlReport& report) {
  const LayerScores& scores = result.scores;
  if (scores.greedy.perplexity.empty()) return;
  report.heading("The greedy search");
  ReportChart chart;
  chart.title = "Perplexity after each removal (sleb)";
  chart.x_label = "layers removed";
  chart.y_label = "perplexity";
  chart.log_y = spreads_far(scores.greedy.perplexity);
  ReportSeries series{"sleb", {0}, {scores.dense_perplexity}};
  for (std::size_t i = 0; i < scores.greedy.perplexity.size(); ++i) {
    series.x.push_back(static_cast<double>(i + 1));
    series.y.push_back(scores.greedy.perplexity[i]);
  }
  chart.series.push_back(std::move(series));
  report.chart(chart);
  std::string order;
  for (const std::int64_t layer : scores.greedy.removed)
    order += format("{}{}", order.empty() ? "" : ", ", layer);
  report.paragraph(
      format("In this order: {}. {} block runs instead of the {} of running every candidate.",
             order, scores.greedy.block_forwards, scores.greedy.plain_forwards));
}

void add_similarity(const RedundancyResult& result, HtmlReport& report) {
  if (!result.scores.cka.defined()) return;
  report.heading("How alike the layers' outputs are");
  ReportHeatMap map;
  map.title = "Unbiased CKA between layer outputs";
  map.x_label = "layer";
  map.y_label = "layer";
  map.values = matrix_rows(result.scores.cka);
  for (const PruneChoice& choice : result.choices) {
    if (choice.method == "cka_adj") {
      map.highlight = as_ints(choice.removed);
      map.highlight_name = "cka_adj would remove";
    } else if (choice.method == "sglp") {
      const std::vector<std::int64_t> starts =
          segment_plan(result.scores, result.remove).segmentation.starts;
      map.cuts.assign(starts.begin() + 1, starts.end());
      map.cuts_name = "segments of sglp";
      if (map.highlight.empty()) {
        map.highlight = as_ints(choice.removed);
        map.highlight_name = "sglp would remove";
      }
    }
  }
  report.heat_map(map);
  report.paragraph(
      "1 (equal up to rotation and scaling) down to 0 (unrelated). Rows of the features are "
      "tokens, RMS-normalised, the first "
      "position of each segment dropped, since its massive activations would make every pair look "
      "alike.");
  if (result.msrs.share.empty()) return;
  ReportChart share;
  share.kind = ReportChart::Kind::kBar;
  share.title = "Share of each layer in the redundancy score";
  share.x_label = "layer";
  share.y_label = "share of MSRS (pairs)";
  share.x_names = layer_names(result.scores.layers);
  ReportSeries series{"share", {}, result.msrs.share};
  for (std::size_t layer = 0; layer < result.msrs.share.size(); ++layer)
    series.x.push_back(static_cast<double>(layer));
  share.series.push_back(std::move(series));
  report.chart(share);
  report.paragraph(format(
      "MSRS counts pairs of layers with CKA above {}: {} of {} pairs, {} of all.", result.tau,
      number(result.msrs.value), result.scores.layers * (result.scores.layers - 1) / 2,
      number(result.msrs.normalised)));
}

void write_report(const RedundancyResult& result, const fs::path& path) {
  HtmlReport report(
      format("Redundancy of {}", model_name(result.model)),
      format("{} layers, {} x {} tokens of {}", result.scores.layers, result.calibration.samples,
             result.calibration.seq_len, fs::path(result.calibration.file).filename().string()));
  std::vector<std::pair<std::string, std::string>> figures{
      {"layers", format("{}", result.scores.layers)}};
  if (result.scores.dense_perplexity > 0)
    figures.emplace_back("calibration perplexity, dense", number(result.scores.dense_perplexity));
  if (!result.msrs.share.empty())
    figures.emplace_back("MSRS, share of all pairs", number(result.msrs.normalised));
  const auto best = std::min_element(result.choices.begin(), result.choices.end(),
                                     [](const auto& a, const auto& b) {
                                       return (a.perplexity > 0 ? a.perplexity : INFINITY) <
                                              (b.perplexity > 0 ? b.perplexity : INFINITY);
                                     });
  if (best != result.choices.end() && best->perplexity > 0) {
    figures.emplace_back(format("lowest without {} layers ({})", result.remove, best->method),
                         number(best->perplexity));
  }
  report.figures(figures);
  add_choices(result, report);
  add_greedy_search(result, report);
  add_similarity(result, report);
  report.heading("Scores by layer");
  for (const PruneChoice& choice : result.choices) {
    if (choice.method != "reverse" && choice.method != "random")
      add_metric_chart(result, choice, report);
  }
  report.provenance({{"model", result.model},
                     {"calibration", result.calibration.file},
                     {"calibration sha256", result.calibration.sha256},
                     {"samples", format("{} x {} tokens, no BOS", result.calibration.samples,
                                        result.calibration.seq_len)},
                     {"seed", format("{}", result.calibration.seed)},
                     {"command", result.command_line},
                     {"espalier", build_info().version},
                     {"libtorch", build_info().libtorch_version}});
  report.write(path);
}

Json numbers(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values)
    list.push_back(std::isfinite(value) ? Json(value) : Json(nullptr));
  return list;
}

}  // namespace

std::vector<PruneChoice> choices_of(const LayerScores& scores, std::int64_t remove) {
  std::vector<PruneChoice> choices;
  for (const std::string& metric : metric_names()) {
    if (scores.metrics.contains(metric))
      choices.push_back({metric, select_layers(scores, metric, remove), 0});
  }
  return choices;
}

void write_redundancy(const RedundancyResult& result, const fs::path& folder) {
  write_file_atomically(folder / "scores.json",
                        scores_to_json(result.scores, result.model, result.calibration));
  for (const auto& [metric, values] : result.scores.metrics) {
    if (metric == "sglp") continue;  // segments share what goes anew for each number of layers
    write_file_atomically(folder / format("block_order_{}.csv", metric),
                          order_to_csv(block_order(result.scores, metric)));
  }
  if (result.scores.cka.defined()) {
    write_file_atomically(folder / "cka.csv", matrix_csv(result.scores.cka));
  }
  fs::create_directories(folder / "run");
  write_report(result, folder / "run" / "report.html");
}

std::string redundancy_json(const RedundancyResult& result) {
  Json json = Json::object();
  json["schema"] = "espalier.redundancy/1";
  json["model"] = result.model;
  json["layers"] = result.scores.layers;
  json["metrics"] = Json::object();
  for (const auto& [metric, values] : result.scores.metrics)
    json["metrics"][metric] = numbers(values);
  json["cka"] = nullptr;
  json["msrs"] = json["msrs_normalised"] = json["share"] = nullptr;
  if (result.scores.cka.defined()) {
    json["cka"] = Json::array();
    for (const auto& row : matrix_rows(result.scores.cka)) json["cka"].push_back(numbers(row));
  }
  if (!result.msrs.share.empty()) {
    json["msrs"] = result.msrs.value;
    json["msrs_normalised"] = result.msrs.normalised;
    json["share"] = numbers(result.msrs.share);
  }
  if (result.scores.dense_perplexity > 0) json["dense_perplexity"] = result.scores.dense_perplexity;
  json["remove"] = result.remove;
  json["choices"] = Json::object();
  for (const PruneChoice& choice : result.choices) {
    json["choices"][choice.method] = {
        {"removed", choice.removed},
        {"perplexity", choice.perplexity > 0 ? Json(choice.perplexity) : Json(nullptr)}};
  }
  json["block_forwards"] = result.scores.block_forwards;
  if (!result.scores.greedy.removed.empty()) {
    json["sleb"] = {{"removed", result.scores.greedy.removed},
                    {"perplexity", result.scores.greedy.perplexity},
                    {"block_forwards", result.scores.greedy.block_forwards},
                    {"plain_forwards", result.scores.greedy.plain_forwards}};
  }
  json["calibration"] = {
      {"file", result.calibration.file},       {"sha256", result.calibration.sha256},
      {"samples", result.calibration.samples}, {"seq_len", result.calibration.seq_len},
      {"seed", result.calibration.seed},       {"add_bos", false}};
  return dump_json(json);
}

std::string redundancy_table(const RedundancyResult& result) {
  std::vector<std::string> columns{"layer"};
  for (const PruneChoice& choice : result.choices) columns.push_back(choice.method);
  if (!result.msrs.share.empty()) columns.push_back("share");
  std::vector<std::vector<std::string>> rows;
  for (std::int64_t layer = 0; layer < result.scores.layers; ++layer) {
    std::vector<std::string> row{format("{}", layer)};
    for (const PruneChoice& choice : result.choices) {
      row.push_back(
          number(result.scores.metrics.at(choice.method)[static_cast<std::size_t>(layer)]));
    }
    if (!result.msrs.share.empty())
      row.push_back(number(result.msrs.share[static_cast<std::size_t>(layer)]));
    rows.push_back(std::move(row));
  }
  std::string text = text_table(columns, rows) + "\n";
  columns = {"metric", format("would remove ({} layers)", result.remove)};
  const bool measured = result.scores.dense_perplexity > 0;
  if (measured) columns.push_back("perplexity");
  rows.clear();
  if (measured) rows.push_back({"(none)", "", number(result.scores.dense_perplexity)});
  for (const PruneChoice& choice : result.choices) {
    rows.push_back({choice.method, layer_set_text(choice.removed)});
    if (measured) rows.back().push_back(number(choice.perplexity));
  }
  text += text_table(columns, rows);
  if (!result.msrs.share.empty()) {
    text += format("\nMSRS {} of {} pairs, {} of all\n", number(result.msrs.value),
                   result.scores.layers * (result.scores.layers - 1) / 2,
                   number(result.msrs.normalised));
  }
  return text;
}

}  // namespace espalier::layer_pruning
