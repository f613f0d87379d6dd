// `espalier prune` on a CNN: redtest, sglp, and the two baselines that read no images.
#include "espalier/surgery/prune_cnn.h"

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/methods/redtest/prune.h"
#include "espalier/methods/redtest/redundancy_report.h"
#include "espalier/methods/sglp/prune.h"
#include "espalier/report/html_report.h"
#include "espalier/run/run_folder.h"

#include "apps/cli/cnn_verbs.h"

namespace espalier::cli {
namespace {

namespace fs = std::filesystem;

std::uint64_t seed_of(const Context& context) {
  return static_cast<std::uint64_t>(context.common.seed);
}

CnnPrunePlan plan(const CnnRun& run, const CnnPruneOptions& options, const std::string& method,
                  const Cnn& net, const fs::path& report, Context& context, Reporter& reporter) {
  const std::int64_t keep = *options.keep_layers;
  const bool drop = options.allow_stage_head_drop;
  if (method == "random") return plan_at_random(net, keep, drop, seed_of(context));
  if (method == "magnitude") return plan_by_magnitude(net, keep, drop);
  const ImageSample images = run.cnn.images(net, run.type, reporter);
  if (method == "redtest") {
    redtest::PruneResult result = redtest::plan_pruning(
        net, images, {.keep = keep, .allow_stage_head_drop = drop, .redundancy = {}}, reporter,
        context.stop);
    result.plan.seed = seed_of(context);
    redtest::RedundancyDocument document;
    document.model = run.model;
    document.arch = net.config().arch;
    for (const HiddenLayer& layer : net.hidden_layers()) document.names.push_back(layer.name);
    document.redundancy = std::move(result.before);
    document.segments = segment_layers(document.redundancy.cka, run.segments);
    document.removed = dropped_layers(net, result.plan.kept);
    document.data = run.cnn.data;
    document.data_sha256 = sample_sha256(images);
    document.batches = run.cnn.batches;
    document.batch_size = run.cnn.batch_size;
    document.seed = seed_of(context);
    document.command_line = context.command_line;
    redtest::write_report(document, report);
    return std::move(result.plan);
  }
  sglp::SglpOptions sglp_options;
  sglp_options.keep = keep;
  sglp_options.rule = run.segments;
  sglp_options.importance = options.importance == "combination" ? sglp::Importance::kCombination
                                                                : sglp::Importance::kLayer;
  sglp_options.allow_stage_head_drop = drop;
  sglp_options.seed = seed_of(context);
  sglp::SglpResult result = sglp::plan_pruning(net, images, sglp_options, reporter, context.stop);
  sglp::write_report(result, net, run.model, context.command_line, report);
  return std::move(result.plan);
}

std::string result_json(const CnnRun& run, const Cnn& net, const CnnPrunePlan& plan,
                        const PrunedCnn& pruned, double seconds) {
  const std::vector<HiddenLayer> layers = net.hidden_layers();
  Json json = Json::object();
  json["schema"] = "espalier.prune/1";
  json["model"] = run.model;
  json["arch"] = net.config().arch;
  json["method"] = plan.method;
  json["layers_before"] = layers.size();
  json["kept"] = plan.kept;
  json["removed"] = dropped_layers(net, plan.kept);
  json["kept_names"] = Json::array();
  for (const std::int64_t layer : plan.kept)
    json["kept_names"].push_back(layers[static_cast<std::size_t>(layer)].name);
  json["stages"] = pruned.config.stages;
  json["parameters_before"] = pruned.parameters_before;
  json["parameters_after"] = pruned.parameters_after;
  json["scores"] = Json::object();
  for (const auto& [name, values] : plan.scores) json["scores"][name] = values;
  const Json details = parse_json(plan.details, "details");
  for (const auto& [key, value] : details.items()) json[key] = value;
  json["out"] = run.output.out;
  json["bytes"] = pruned.bytes;
  json["seconds"] = seconds;
  json["peak_rss_bytes"] = peak_rss().count;
  return dump_json(json);
}

std::string result_text(const CnnRun& run, const Cnn& net, const CnnPrunePlan& plan,
                        const PrunedCnn& pruned, double seconds) {
  const std::vector<HiddenLayer> layers = net.hidden_layers();
  std::vector<std::vector<std::string>> rows;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const bool stays =
        std::binary_search(plan.kept.begin(), plan.kept.end(), static_cast<std::int64_t>(i));
    std::vector<std::string> row{format("{}", i), layers[i].name};
    for (const auto& [name, values] : plan.scores) row.push_back(format("{:.5g}", values[i]));
    row.emplace_back(stays ? "kept" : "removed");
    rows.push_back(std::move(row));
  }
  std::vector<std::string> columns{"layer", "name"};
  for (const auto& [name, values] : plan.scores) columns.push_back(name);
  columns.emplace_back("");
  return text_table(columns, rows) +
         format("\n{}: {} of {} layers stay, {} per stage; {} of {} parameters\n", plan.method,
                plan.kept.size(), layers.size(), stage_counts_text(pruned.config),
                pruned.parameters_after, pruned.parameters_before) +
         format("checked: equal, bit for bit, to the kept layers of the source\n{} in {}: {}\n",
                to_string(Bytes{static_cast<std::int64_t>(pruned.bytes)}), format_seconds(seconds),
                run.output.out);
}

}  // namespace

int run_cnn_prune(const CnnRun& run, const CnnPruneOptions& options, const std::string& asked,
                  Context& context) {
  const Stopwatch watch;
  const std::string method = asked == "auto" ? "redtest" : asked;
  const bool measures = method == "redtest" || method == "sglp";
  if (!measures && method != "random" && method != "magnitude") {
    throw Error(ErrorKind::kUsage, "--method", format("{} is for decoders, not for CNNs", method))
        .hint("--method redtest, sglp, magnitude or random");
  }
  if (!options.keep_layers) {
    throw Error(ErrorKind::kUsage, "--keep-layers", "is missing: how many layers of the CNN stay")
        .hint("--keep-layers 14 counts the stem too");
  }
  if (run.output.out.empty()) throw Error(ErrorKind::kUsage, "--out", "is missing");
  std::vector<fs::path> inputs{run.model};
  if (measures && !run.cnn.data.empty()) inputs.emplace_back(run.cnn.data);
  check_output_apart(run.output.out, inputs);
  const Cnn net = run.cnn.load(run.model, context);
  check_cnn_pruning(net, *options.keep_layers, options.allow_stage_head_drop);
  if (run.dry_run) {
    print_cnn_cost(run, net, method == "sglp", method == "sglp", "prune",
                   format("keep {} of {} layers of {}, chosen by {}", *options.keep_layers,
                          net.hidden_layers().size(), net.config().arch, method),
                   context);
    return 0;
  }
  RunFacts facts;
  facts.verb = "prune";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.seed = seed_of(context);
  facts.device = context.common.device;
  facts.threads = at::get_num_threads();
  RunFolder folder = RunFolder::create(run.output.out, run.output.policy(), facts);
  Reporter& reporter = folder.log_to_file(context.reporter);
  folder.add_input(run.model, "");
  const CnnPrunePlan chosen =
      plan(run, options, method, net, folder.run_dir() / "report.html", context, reporter);
  const PrunedCnn pruned =
      write_planned_cnn(net, chosen, run.model, context.command_line, folder, reporter);
  folder.publish();
  context.print_result(result_text(run, net, chosen, pruned, watch.seconds()),
                       result_json(run, net, chosen, pruned, watch.seconds()));
  return 0;
}

}  // namespace espalier::cli
