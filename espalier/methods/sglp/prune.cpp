// See prune.h.
#include "espalier/methods/sglp/prune.h"

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/eval/hidden_similarity.h"
#include "espalier/methods/sglp/importance.h"
#include "espalier/report/html_report.h"
#include "espalier/run/build_info.h"
#include "espalier/similarity/similarity_charts.h"

namespace espalier::sglp {
namespace {

std::vector<double> row_sums(const at::Tensor& cka) {
  const at::Tensor sums = at::nan_to_num(cka, 0.0).sum(1).contiguous();
  return {sums.const_data_ptr<double>(), sums.const_data_ptr<double>() + sums.numel()};
}

std::string list_text(const std::vector<std::int64_t>& numbers) {
  std::string text;
  for (const std::int64_t number : numbers)
    text += format("{}{}", text.empty() ? "" : ", ", number);
  return text;
}

}  // namespace

SglpResult plan_pruning(const Cnn& net, const ImageSample& images, const SglpOptions& options,
                        Reporter& reporter, const StopToken& stop) {
  check_cnn_pruning(net, options.keep, options.allow_stage_head_drop);
  check_image_sample(net, images);
  const std::vector<std::int64_t> always = layers_always_kept(net, options.allow_stage_head_drop);
  SglpResult result;
  result.cka =
      hidden_similarity(net, images,
                        {.form = FeatureForm::kFlattened, .estimator = CkaEstimator::kBiased}, {},
                        reporter, stop)
          .cka_mean_of_ratios();
  // Segments and budgets need no importance: what is impossible is refused before gradients run.
  const std::vector<double> even(static_cast<std::size_t>(result.cka.size(0)), 0);
  result.segments = plan_segments(result.cka, even, options.keep, options.rule, always);
  CnnPrunePlan& plan = result.plan;
  plan.method = "sglp";
  plan.allow_stage_head_drop = options.allow_stage_head_drop;
  plan.seed = options.seed;
  plan.scores["similarity_sum"] = row_sums(result.cka);
  const Segmentation& found = result.segments.segmentation;
  Json details = {
      {"segments",
       {{"k", found.k},
        {"starts", found.starts},
        {"cost", found.cost},
        {"costs", found.costs},
        {"keep", result.segments.budgets}}},
      {"importance", options.importance == Importance::kLayer ? "layer" : "combination"}};
  if (options.importance == Importance::kLayer) {
    plan.scores["gradnorm"] = layer_gradient_norms(net, images, reporter, stop);
    result.segments.kept =
        keep_top_of_segments(plan.scores["gradnorm"], found, result.segments.budgets, always);
  } else {
    const CombinationChoice choice =
        best_combinations(net, images, found, result.segments.budgets, always,
                          {.seed = options.seed}, reporter, stop);
    result.segments.kept = choice.kept;
    details["combinations"] = {{"networks", choice.networks}, {"gradnorm", choice.norms}};
  }
  plan.kept = result.segments.kept;
  plan.details = dump_json(details);
  return result;
}

void write_report(const SglpResult& result, const Cnn& net, const std::string& model,
                  const std::string& command_line, const std::filesystem::path& path) {
  std::vector<std::string> names;
  for (const HiddenLayer& layer : net.hidden_layers()) names.push_back(layer.name);
  const Segmentation& found = result.segments.segmentation;
  const std::vector<std::int64_t> removed = dropped_layers(net, result.plan.kept);
  HtmlReport report(format("SGLP on {}", std::filesystem::path(model).filename().string()),
                    format("{} of {} layers stay", result.plan.kept.size(), names.size()));
  report.heading("Segments of alike layers");
  report.heat_map(similarity_map(result.cka, "Biased CKA between layers", found.starts, removed));
  report.paragraph(
      format("Fisher's optimal segmentation of the row sums: {} segments of {} layers, which keep "
             "{}.",
             found.starts.size(), list_text(found.sizes(static_cast<std::int64_t>(names.size()))),
             list_text(result.segments.budgets)));
  report.chart(layer_bars("Row sums of the matrix", "sum of CKA",
                          result.plan.scores.at("similarity_sum"), names, removed));
  if (const auto norms = result.plan.scores.find("gradnorm"); norms != result.plan.scores.end()) {
    report.heading("Importance inside the segments");
    report.chart(layer_bars("Gradient norm", "norm of dL/dw", norms->second, names, removed));
    report.paragraph(
        "Of each segment the layers with the longest gradient stay, the stem and the heads of "
        "stages in any case.");
  }
  report.provenance({{"model", model},
                     {"command", command_line},
                     {"espalier", build_info().version},
                     {"libtorch", build_info().libtorch_version}});
  report.write(path);
}

}  // namespace espalier::sglp
