// See cnn_plan.h.
#include "espalier/surgery/cnn_plan.h"

#include <filesystem>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/random.h"
#include "espalier/run/build_info.h"
#include "espalier/similarity/layer_choice.h"
#include "espalier/surgery/layer_plan.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

std::string record(const Cnn& net, const CnnPrunePlan& plan, const PrunedCnn& pruned,
                   const std::string& source, const std::string& command_line) {
  Json json = Json::object();
  json["schema"] = "espalier.pruning/1";
  json["source"] = fs::path(source).filename().string();
  json["method"] = plan.method;
  json["layers_before"] = net.hidden_layers().size();
  json["kept"] = plan.kept;
  json["removed"] = pruned.removed;
  json["kept_names"] = pruned.kept_names;
  json["parameters_before"] = pruned.parameters_before;
  json["parameters_after"] = pruned.parameters_after;
  json["scores"] = Json::object();
  for (const auto& [name, values] : plan.scores) json["scores"][name] = values;
  const Json details = parse_json(plan.details, "details");
  for (const auto& [key, value] : details.items()) json[key] = value;
  json["command"] = command_line;
  json["version"] = build_info().version;
  return dump_json(json);
}

std::string model_card(const Cnn& net, const CnnPrunePlan& plan, const PrunedCnn& pruned,
                       const CnnConfig& config, const std::string& command_line) {
  std::string names;
  for (const std::string& name : pruned.removed_names)
    names += format("{}{}", names.empty() ? "" : ", ", name);
  std::string card = format("# {} with {} of its {} layers\n\n", net.config().arch,
                            plan.kept.size(), plan.kept.size() + pruned.removed.size());
  card += format(
      "Chosen by `{}`. Dropped: {}. Layers per stage now: {}. Parameters: {} of {}.\n\n"
      "The weights that stay are unchanged and nothing was trained after the removal.\n",
      plan.method, names.empty() ? "nothing" : names, stage_counts_text(config),
      pruned.parameters_after, pruned.parameters_before);
  if (!command_line.empty()) card += format("\n## How\n\n```\n{}\n```\n", command_line);
  return card + format("\nespalier {}. Scores: `espalier_pruning.json`.\n", build_info().version);
}

}  // namespace

std::vector<std::int64_t> layers_always_kept(const Cnn& net, bool allow_stage_head_drop) {
  std::vector<std::int64_t> kept;
  const std::vector<HiddenLayer> layers = net.hidden_layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (i == 0 || (layers[i].is_protected && !allow_stage_head_drop))
      kept.push_back(static_cast<std::int64_t>(i));
  }
  return kept;
}

void check_cnn_pruning(const Cnn& net, std::int64_t keep, bool allow_stage_head_drop) {
  const auto layers = static_cast<std::int64_t>(net.hidden_layers().size());
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < layers; ++i) all.push_back(i);
  net.with_layers(all, {}, silent_reporter());
  const auto least =
      static_cast<std::int64_t>(layers_always_kept(net, allow_stage_head_drop).size());
  if (keep < least) {
    throw Error(
        ErrorKind::kUsage, "--keep-layers",
        format("is {}, but {} layers are protected: {}", keep, least,
               allow_stage_head_drop ? "the first one" : "the stem and the heads of stages"))
        .hint(format(
            "--keep-layers {} is the least{}", least,
            allow_stage_head_drop ? "" : "; --allow-stage-head-drop protects the stem alone"));
  }
  if (keep > layers) {
    throw Error(
        ErrorKind::kUsage, "--keep-layers",
        format("is {}, but {} has {} layers, the stem included", keep, net.config().arch, layers));
  }
}

std::vector<double> layer_magnitudes(const Cnn& net) {
  std::vector<double> sums;
  const auto layers = static_cast<std::int64_t>(net.hidden_layers().size());
  for (std::int64_t i = 0; i < layers; ++i) {
    double sum = 0;
    for (const NamedTensor& parameter : net.hidden_parameters(i)) {
      if (parameter.name.ends_with("weight"))
        sum += parameter.tensor.to(at::kDouble).abs().sum().item<double>();
    }
    sums.push_back(sum);
  }
  return sums;
}

std::vector<double> random_layer_ranks(std::int64_t layers, std::uint64_t seed) {
  RandomStream stream(seed, "random layer scores");
  std::vector<double> ranks;
  for (const std::int64_t rank : random_permutation(layers, stream))
    ranks.push_back(static_cast<double>(rank));
  return ranks;
}

CnnPrunePlan plan_by_magnitude(const Cnn& net, std::int64_t keep, bool allow_stage_head_drop) {
  check_cnn_pruning(net, keep, allow_stage_head_drop);
  CnnPrunePlan plan{.method = "magnitude", .kept = {}, .scores = {}};
  plan.allow_stage_head_drop = allow_stage_head_drop;
  plan.scores["magnitude"] = layer_magnitudes(net);
  plan.kept = keep_most_important(plan.scores["magnitude"], keep,
                                  layers_always_kept(net, allow_stage_head_drop));
  return plan;
}

CnnPrunePlan plan_at_random(const Cnn& net, std::int64_t keep, bool allow_stage_head_drop,
                            std::uint64_t seed) {
  check_cnn_pruning(net, keep, allow_stage_head_drop);
  CnnPrunePlan plan{.method = "random", .kept = {}, .scores = {}};
  plan.allow_stage_head_drop = allow_stage_head_drop;
  plan.seed = seed;
  plan.scores["random"] =
      random_layer_ranks(static_cast<std::int64_t>(net.hidden_layers().size()), seed);
  plan.kept = keep_most_important(plan.scores["random"], keep,
                                  layers_always_kept(net, allow_stage_head_drop));
  return plan;
}

std::vector<std::int64_t> dropped_layers(const Cnn& net, const std::vector<std::int64_t>& kept) {
  return complement(kept, static_cast<std::int64_t>(net.hidden_layers().size()));
}

PrunedCnn write_planned_cnn(const Cnn& net, const CnnPrunePlan& plan, const std::string& source,
                            const std::string& command_line, RunFolder& run, Reporter& reporter) {
  PrunedCnn pruned = write_pruned_cnn(
      net, plan.kept, {.allow_stage_head_drop = plan.allow_stage_head_drop, .seed = plan.seed},
      run.folder(), reporter);
  const CnnConfig config = Cnn::load(run.folder()).config();
  write_file_atomically(run.folder() / "espalier_pruning.json",
                        record(net, plan, pruned, source, command_line));
  write_file_atomically(run.folder() / "README.md",
                        model_card(net, plan, pruned, config, command_line));
  return pruned;
}

}  // namespace espalier
