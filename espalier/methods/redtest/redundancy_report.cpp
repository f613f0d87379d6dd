// See redundancy_report.h.
#include "espalier/methods/redtest/redundancy_report.h"

#include <cmath>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/report/html_report.h"
#include "espalier/run/build_info.h"
#include "espalier/similarity/similarity_charts.h"

namespace espalier::redtest {
namespace {

namespace fs = std::filesystem;

std::string number(double value) { return std::isnan(value) ? "" : format("{:.4f}", value); }

std::int64_t pairs(const RedundancyDocument& document) {
  const auto layers = static_cast<std::int64_t>(document.names.size());
  return layers * (layers - 1) / 2;
}

const char* estimator_name(const RedundancyDocument& document) {
  return document.options.estimator == CkaEstimator::kBiased ? "biased" : "unbiased";
}

const char* average_name(const RedundancyDocument& document) {
  return document.options.average == CkaAverage::kRatio ? "ratio" : "hsic";
}

/// CKA of each layer with the one before it.
std::vector<double> adjacent_by_layer(const RedundancyDocument& document) {
  std::vector<double> values{std::nan("")};
  values.insert(values.end(), document.redundancy.adjacent.begin(),
                document.redundancy.adjacent.end());
  return values;
}

HtmlReport report_of(const RedundancyDocument& document) {
  const Msrs& found = document.redundancy.msrs;
  HtmlReport report(
      format("Redundancy of {}", fs::path(document.model).filename().string()),
      format("{}, {} layers, {} x {} images of {}", document.arch, document.names.size(),
             document.batches, document.batch_size, fs::path(document.data).filename().string()));
  report.figures({{"layers", format("{}", document.names.size())},
                  {"MSRS", format("{:.2f} of {} pairs", found.value, pairs(document))},
                  {"MSRS, share of all pairs", format("{:.3f}", found.normalised)},
                  {"segments", format("{}", document.segments.starts.size())}});
  report.heading("How alike the layers are");
  report.heat_map(similarity_map(
      document.redundancy.cka,
      format("{} CKA between layers",
             document.options.estimator == CkaEstimator::kBiased ? "Biased" : "Unbiased"),
      document.segments.starts, document.removed));
  report.paragraph(
      "1 (equal up to rotation and scaling) down to 0 (unrelated). Features are means over height "
      "and width, one row per image. Frames are the segments of Fisher's optimal segmentation of "
      "the row sums.");
  report.heading("Which layers repeat others");
  report.chart(layer_bars("Share of each layer in MSRS", "pairs", found.share, document.names,
                          document.removed));
  report.paragraph(
      format("MSRS counts pairs of layers whose CKA is above {}, softly (beta {}): {:.2f} of {} "
             "pairs. The shares add up to it.",
             document.options.tau, document.options.beta, found.value, pairs(document)));
  report.chart(layer_bars("CKA of each layer with the one before it", "CKA",
                          adjacent_by_layer(document), document.names, document.removed));
  report.paragraph("`prune --method redtest` drops the layers with the highest bars.");
  report.provenance({{"model", document.model},
                     {"images", document.data},
                     {"images sha256", document.data_sha256},
                     {"estimator", format("{}, averaged by {}", estimator_name(document),
                                          average_name(document))},
                     {"command", document.command_line},
                     {"espalier", build_info().version},
                     {"libtorch", build_info().libtorch_version}});
  return report;
}

}  // namespace

std::string redundancy_json(const RedundancyDocument& document) {
  const Redundancy& found = document.redundancy;
  Json json = Json::object();
  json["schema"] = "espalier.redundancy/1";
  json["model"] = document.model;
  json["arch"] = document.arch;
  json["layers"] = document.names.size();
  json["layer_names"] = document.names;
  json["metrics"] = {{"adjacent_cka", adjacent_by_layer(document)}};
  json["cka"] = matrix_rows(found.cka);
  json["msrs"] = found.msrs.value;
  json["msrs_normalised"] = found.msrs.normalised;
  json["share"] = found.msrs.share;
  json["degenerate"] = found.degenerate;
  json["segments"] = {{"starts", document.segments.starts}, {"costs", document.segments.costs}};
  json["settings"] = {{"cka", estimator_name(document)},
                      {"cka_average", average_name(document)},
                      {"beta", document.options.beta},
                      {"tau", document.options.tau}};
  json["calibration"] = {{"file", document.data},
                         {"sha256", document.data_sha256},
                         {"samples", document.batches * document.batch_size},
                         {"batches", document.batches},
                         {"batch_size", document.batch_size},
                         {"seq_len", nullptr},
                         {"seed", document.seed}};
  return dump_json(json);
}

std::string redundancy_table(const RedundancyDocument& document) {
  const std::vector<double> adjacent = adjacent_by_layer(document);
  const std::vector<std::int64_t> segment =
      document.segments.segment_of(static_cast<std::int64_t>(document.names.size()));
  std::vector<std::vector<std::string>> rows;
  for (std::size_t i = 0; i < document.names.size(); ++i) {
    rows.push_back({format("{}", i), document.names[i], number(adjacent[i]),
                    number(document.redundancy.msrs.share[i]), format("{}", segment[i])});
  }
  const Msrs& found = document.redundancy.msrs;
  return text_table({"layer", "name", "CKA with previous", "share", "segment"}, rows) +
         format("\nMSRS {:.4f} of {} pairs, {:.4f} of all\n", found.value, pairs(document),
                found.normalised);
}

void write_report(const RedundancyDocument& document, const fs::path& path) {
  report_of(document).write(path);
}

void write_redundancy(const RedundancyDocument& document, const fs::path& folder) {
  write_file_atomically(folder / "redundancy.json", redundancy_json(document));
  write_file_atomically(folder / "cka.csv", matrix_csv(document.redundancy.cka));
  fs::create_directories(folder / "run");
  write_report(document, folder / "run" / "report.html");
}

}  // namespace espalier::redtest
