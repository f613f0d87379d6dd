// Writing, proving and describing a pruned model.
#include "espalier/methods/layer_pruning/prune_job.h"

#include <cmath>

#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/methods/layer_pruning/mergekit.h"
#include "espalier/methods/layer_pruning/model_card.h"
#include "espalier/run/build_info.h"
#include "espalier/surgery/layer_plan.h"
#include "espalier/surgery/prune_files.h"
#include "espalier/surgery/write_model.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;

std::string perplexity_text(double value) {
  return value < 1e5 ? format("{:.2f}", value) : format("{:.3g}", value);
}

std::string how_chosen(const PrunePlan& plan) {
  if (plan.chosen.method == "list") return "The layers were named by the user.";
  return format("The layers were chosen by the layer score `{}`.", plan.chosen.method);
}

std::string model_card(const PruneJob& job, const PrunePlan& plan) {
  const std::string name = model_name(job.source);
  std::string card = card_front_matter(job.source);
  card +=
      format("# {} without {} of its {} layers\n\n", name, plan.chosen.removed.size(), plan.layers);
  card += format(
      "Layers {} of `{}` were removed with espalier; the kept layers' weights are unchanged. "
      "{}\n\n",
      layer_set_text(plan.chosen.removed), name, how_chosen(plan));
  if (const auto rows = perplexity_rows(plan); !rows.empty()) {
    card += markdown_table({"model", "layers removed", "perplexity"}, rows);
    card += format(
        "\nPerplexity on the calibration text `{}` (sha256 {}): {} segments of {} tokens, no "
        "overlap, no BOS.\n\n",
        fs::path(plan.calibration.file).filename().string(), plan.calibration.sha256,
        plan.calibration.samples, plan.calibration.seq_len);
  }
  card += "The model was not trained after the removal; `espalier finetune` heals it.\n";
  if (!job.command_line.empty()) card += format("\n## How\n\n```\n{}\n```\n", job.command_line);
  card += format("\nespalier {}. All numbers and scores: `espalier_pruning.json`.\n",
                 build_info().version);
  if (source_licence(job.source).empty()) card += "\nThe licence is the base model's.\n";
  return card;
}

Json choice_json(const PruneChoice& choice) {
  Json json = {{"method", choice.method}, {"removed", choice.removed}};
  json["perplexity"] = choice.perplexity > 0 ? Json(choice.perplexity) : Json(nullptr);
  return json;
}

std::uint64_t size_without_run(const fs::path& folder) {
  std::uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  return bytes;
}

/// A resumed run starts its files anew; what an earlier plan left there must not end up in the
/// output.
void clear_earlier_files(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && !name.starts_with('.')) fs::remove(entry.path());
  }
}

}  // namespace

std::vector<std::vector<std::string>> perplexity_rows(const PrunePlan& plan) {
  std::vector<std::vector<std::string>> rows;
  if (plan.dense_perplexity <= 0) return rows;
  rows.push_back({"dense", "none", perplexity_text(plan.dense_perplexity)});
  rows.push_back(
      {plan.chosen.method == "list" ? "pruned" : format("pruned by {}", plan.chosen.method),
       layer_set_text(plan.chosen.removed), perplexity_text(plan.chosen.perplexity)});
  if (plan.runner_up) {
    rows.push_back({format("what {} would remove", plan.runner_up->method),
                    layer_set_text(plan.runner_up->removed),
                    perplexity_text(plan.runner_up->perplexity)});
  }
  return rows;
}

std::string pruning_record(const PruneJob& job, const PrunePlan& plan) {
  Json json = Json::object();
  json["schema"] = "espalier.pruning/1";
  json["source"] = model_name(job.source);
  json["method"] = plan.chosen.method;
  json["layers_before"] = plan.layers;
  json["kept"] = plan.kept;
  json["removed"] = plan.chosen.removed;
  json["calibration"] = nullptr;
  if (!plan.calibration.file.empty()) {
    json["calibration"] = {{"file", fs::path(plan.calibration.file).filename().string()},
                           {"sha256", plan.calibration.sha256},
                           {"n", plan.calibration.samples},
                           {"T", plan.calibration.seq_len},
                           {"seed", plan.calibration.seed},
                           {"add_bos", false}};
  }
  if (plan.dense_perplexity > 0) {
    json["perplexity"] = {{"dense", plan.dense_perplexity}, {"pruned", plan.chosen.perplexity}};
    if (plan.runner_up) json["runner_up"] = choice_json(*plan.runner_up);
  }
  json["scores"] =
      parse_json(scores_to_json(plan.scores, "", plan.calibration), "scores")["metrics"];
  if (plan.chosen.method == "sleb")
    json["sleb"] = {{"removed", plan.scores.greedy.removed},
                    {"perplexity", plan.scores.greedy.perplexity},
                    {"block_forwards", plan.scores.greedy.block_forwards},
                    {"plain_forwards", plan.scores.greedy.plain_forwards}};
  if (plan.segments) json["segments"] = parse_json(segments_to_json(*plan.segments), "segments");
  json["command"] = job.command_line;
  json["version"] = build_info().version;
  return dump_json(json);
}

PruneOutcome write_pruned_folder(const PruneJob& job, const PrunePlan& plan, RunFolder& run,
                                 Reporter& reporter, const StopToken& stop) {
  clear_earlier_files(run.folder());
  PruneOutcome outcome;
  if (fs::is_directory(job.source)) {
    const PrunedFiles files = prune_hf_folder(job.source, plan.kept, run.folder(), reporter, stop);
    verify_pruned(job.source, plan.kept, run.folder(), reporter);
    for (const auto& [name, digest] : files.digests) run.add_output_digest(name, digest);
  } else {
    const GgufType stored = default_gguf_type(job.source);
    const Dtype dtype = job.type ? dtype_of(*job.type) : default_hf_dtype(job.source);
    convert_to_hf(job.source, run.folder(), dtype, reporter, plan.kept, stop);
    outcome.comparison = compare_models(job.source, plan.kept, run.folder(),
                                        comparison_limit(stored, gguf_type_of(dtype)), reporter);
  }
  write_file_atomically(run.folder() / "espalier_pruning.json", pruning_record(job, plan));
  write_file_atomically(
      run.folder() / "mergekit.yaml",
      mergekit_yaml(plan.kept, job.model.empty() ? job.source.string() : job.model,
                    DecoderCheckpoint::open(run.folder())->config().torch_dtype));
  write_file_atomically(run.folder() / "README.md", model_card(job, plan));
  outcome.bytes = size_without_run(run.folder());
  return outcome;
}

PruneOutcome write_pruned_gguf(const PruneJob& job, const PrunePlan& plan,
                               const fs::path& destination, Reporter& reporter,
                               const StopToken& stop) {
  PruneOutcome outcome;
  if (fs::is_directory(job.source)) {
    const GgufType stored = default_gguf_type(job.source), type = job.type.value_or(stored);
    convert_to_gguf(job.source, destination, type, reporter, plan.kept, stop);
    outcome.comparison = compare_models(job.source, plan.kept, destination,
                                        comparison_limit(stored, type), reporter);
  } else {
    prune_gguf_file(job.source, plan.kept, destination, reporter, stop);
    verify_pruned(job.source, plan.kept, destination, reporter);
  }
  outcome.bytes = fs::file_size(destination);
  return outcome;
}

}  // namespace espalier::layer_pruning
