// `espalier prune`: remove layers of a decoder, as a file operation, and prove the result.
#include <algorithm>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/eval/forward_cost.h"
#include "espalier/methods/layer_pruning/iterative.h"
#include "espalier/methods/layer_pruning/mergekit.h"
#include "espalier/methods/layer_pruning/prune_job.h"
#include "espalier/methods/layer_pruning/prune_plan.h"
#include "espalier/report/html_report.h"
#include "espalier/surgery/layer_plan.h"

#include "apps/cli/calibration_options.h"
#include "apps/cli/cnn_verbs.h"
#include "apps/cli/commands.h"
#include "apps/cli/cost_options.h"
#include "apps/cli/healing.h"
#include "apps/cli/memory_options.h"
#include "apps/cli/merge_file.h"
#include "apps/cli/model_options.h"
#include "apps/cli/nested_verb.h"
#include "apps/cli/output_options.h"
#include "apps/cli/scoring_cost.h"
#include "apps/cli/scoring_options.h"
#include "apps/cli/segment_options.h"

namespace espalier::cli {
namespace {

namespace lp = layer_pruning;

std::vector<std::string> methods() {
  std::vector<std::string> names{"auto", lp::kOrderMetric, "redtest", "magnitude"};
  names.insert(names.end(), lp::metric_names().begin(), lp::metric_names().end());
  return names;
}

struct PruneOptions {
  ModelOptions model;
  OutputOptions output;
  CalibrationOptions calibration;
  ScoringOptions scoring;
  SegmentOptions segments;
  CnnOptions cnn;
  CnnPruneOptions cnn_prune;
  CostOptions cost;
  MemoryOptions memory;
  std::string remove, keep, plan, from_mergekit, method = "auto", scores, recovery = "none",
                                                 format = "auto", type = "auto", finetune;
  std::int64_t step = 1;
  bool thorough = false, iterative = false;
  std::optional<double> ratio;
  std::optional<std::int64_t> count;
  bool force = false;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    option.group("How much goes (one of these)");
    option("remove", remove, "these layers: 12-18,25 includes both ends, 12:19 excludes its end",
           placeholder("LAYERS"));
    option("keep", keep, "all layers but these go", placeholder("LAYERS"));
    option(
        "plan", plan,
        "keep what this file keeps: the espalier_pruning.json of another run, or a mergekit file",
        placeholder("FILE"));
    option("from_mergekit", from_mergekit,
           "keep the slices of a mergekit passthrough file; its ranges are half-open",
           placeholder("FILE"));
    option("ratio", ratio, "share of the layers, rounded down", in_range(0, 0.99));
    option("count", count, "number of layers", at_least(1));
    option("force", force, "allow layers 0 and 1 to go");
    option.group("Which ones");
    option("method", method,
           "layer score; CNNs: redtest, sglp, magnitude, random; auto: on CNNs redtest, else "
           "angular (with --thorough sleb), or with --recovery planned reverse "
           "(large models) or bi; order: that of a --scores file",
           one_of(methods()));
    option("thorough", thorough, "auto may search longer: sleb instead of angular");
    option("scores", scores,
           "scores.json or block_order.csv of an earlier run, instead of scoring again",
           placeholder("FILE"));
    option("recovery", recovery,
           "whether the model will be trained afterwards; decides what auto means",
           one_of({"none", "planned"}));
    scoring.visit(option);
    segments.visit(option);
    option.group("In rounds");
    option("iterative", iterative,
           "score, remove --step layers, train with --finetune, and again until all are gone");
    option("step", step, "layers removed per round", at_least(1));
    option("finetune", finetune,
           "recipe of `espalier finetune` for the training between rounds: data, mode, steps and "
           "so on",
           placeholder("FILE"));
    calibration.visit(option);
    cnn_prune.visit(option);
    cnn.visit(option);
    output.visit(option);
    option("format", format, "what to write; auto keeps the model's own",
           one_of({"auto", "hf", "gguf"}));
    option("type", type, "type of the weights when the format changes; auto loses nothing",
           one_of({"auto", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"}));
    cost.visit(option);
    memory.visit(option);
  }
};

/// What --plan or --from-mergekit keep.
std::optional<std::vector<std::int64_t>> planned_layers(const PruneOptions& o, Context& context,
                                                        std::int64_t num_layers) {
  if (o.plan.empty() && o.from_mergekit.empty()) return std::nullopt;
  if (!o.plan.empty() && !o.from_mergekit.empty()) {
    throw Error(ErrorKind::kUsage, "--plan", "and --from-mergekit both name the layers, give one")
        .hint("--plan reads mergekit files too");
  }
  const std::string& file = o.plan.empty() ? o.from_mergekit : o.plan;
  if (o.from_mergekit.empty() && file.ends_with(".json"))
    return lp::kept_of_record(file, num_layers);
  const lp::MergeFile merge = read_merge_file(file);
  std::vector<std::int64_t> kept = lp::kept_layers(merge, num_layers, file);
  std::string ignored;
  for (const std::string& key : merge.ignored) ignored += (ignored.empty() ? "" : ", ") + key;
  if (!ignored.empty()) {
    context.reporter.warn(format(
        "{}: not applied, since kept weights and files are copied as they are: {}", file, ignored));
  }
  return kept;
}

lp::PruneRequest request_of(const PruneOptions& o, Context& context, const DecoderConfig& config) {
  lp::PruneRequest request;
  request.kept = planned_layers(o, context, config.num_layers);
  request.thorough = o.thorough;
  request.gradient_batch = o.scoring.gradient_batch;
  request.taylor_per_batch = o.scoring.taylor_per_batch;
  request.segments = o.segments.rule();
  if (!o.remove.empty()) request.remove = o.remove;
  if (!o.keep.empty()) request.keep = o.keep;
  request.ratio = o.ratio;
  request.count = o.count;
  request.method = o.method;
  if (!o.scores.empty()) request.scores_file = o.scores;
  if (!o.calibration.calibration.empty()) request.calibration_file = o.calibration.calibration;
  request.samples = o.calibration.samples;
  request.seq_len = o.calibration.seq_len;
  request.special_in_text = o.calibration.special_in_text;
  request.recovery_planned = o.recovery == "planned" || o.iterative;
  request.force = o.force;
  if (context.common.seed != 0) request.seed = static_cast<std::uint64_t>(context.common.seed);
  request.type = o.model.scalar_type();
  request.device = ModelOptions::device(context);
  const MemoryPlan memory =
      plan_memory(o.memory, config, request.type, request.device, context.reporter);
  request.residency = memory.residency;
  request.memory_bytes = memory.working_bytes;
  return request;
}

bool writes_gguf(const PruneOptions& o, const ModelLocation& location) {
  return o.format == "gguf" || (o.format == "auto" && location.kind == ModelLocation::Kind::kGguf);
}

std::optional<GgufType> weight_type(const PruneOptions& o, const ModelLocation& location) {
  if (o.type == "auto") return std::nullopt;
  if (writes_gguf(o, location) == (location.kind == ModelLocation::Kind::kGguf)) {
    throw Error(ErrorKind::kUsage, "--type",
                "only applies when --format changes the format; kept weights are copied unchanged")
        .hint("leave --type out, or run `espalier convert` on the result");
  }
  if (!writes_gguf(o, location) && o.type.starts_with("q")) {
    throw Error(ErrorKind::kUsage, "--type",
                format("{} is a GGUF type, but a model folder is written", o.type))
        .hint("--type f32, f16 or bf16");
  }
  return parse_gguf_type(o.type);
}

void print_estimate(const PruneOptions& o, Context& context, const ModelLocation& location,
                    const DecoderConfig& config, const lp::PruneRequest& request) {
  const lp::RemovalSize size = lp::removal_size(request, config.num_layers);
  const double ratio = static_cast<double>(size.count) / static_cast<double>(config.num_layers);
  const std::string method =
      !size.removed.empty() ? std::string("list")
      : o.method == "auto"
          ? lp::auto_metric(request.recovery_planned, ratio, config.hidden_size, request.thorough)
          : o.method;
  std::vector<std::string> metrics;
  if (method != "list") metrics.push_back(method);
  if (request.calibration_file) metrics.push_back(lp::runner_up_metric(method));
  const ScoringCost scoring =
      scoring_cost(config, metrics, request.samples, request.seq_len,
                   request.calibration_file ? 3 : 0, request.type, request.residency, size.count);
  const double share = 1 - static_cast<double>(size.count) *
                               static_cast<double>(config.parameters_per_layer()) /
                               static_cast<double>(config.parameters());
  CostEstimate cost;
  cost.disk = {
      static_cast<std::int64_t>(share * static_cast<double>(stored_weight_bytes(location.path)))};
  cost.peak_memory = {process_bytes() +
                      std::max<std::int64_t>(64 << 20, scoring.flops > 0 ? scoring.bytes : 0)};
  // Copying and proving run at about the speed of memory to disk cache; scoring at that of the
  // matrices.
  cost.seconds = static_cast<double>(cost.disk.count) / 1e9;
  if (scoring.flops > 0)
    cost.seconds += scoring.flops / measure_flops_per_second(config, request.type, request.device);
  cost.note =
      size.removed.empty()
          ? format("remove {} of {} layers, chosen by {}", size.count, config.num_layers, method)
          : format("remove layers {} of {}", layer_set_text(size.removed), config.num_layers);
  print_cost(context, "prune", cost, o.output.out);
}

std::string result_json(const PruneOptions& o, const lp::PrunePlan& plan,
                        const lp::PruneOutcome& outcome, double seconds) {
  Json json;
  json["schema"] = "espalier.prune/1";
  json["model"] = o.model.model;
  json["method"] = plan.chosen.method;
  json["layers_before"] = plan.layers;
  json["kept"] = plan.kept;
  json["removed"] = plan.chosen.removed;
  json["scores"] =
      parse_json(lp::scores_to_json(plan.scores, "", plan.calibration), "scores")["metrics"];
  const auto measured = [](double value) { return value > 0 ? Json(value) : Json(nullptr); };
  json["perplexity_before"] = measured(plan.dense_perplexity);
  json["perplexity_after"] = measured(plan.chosen.perplexity);
  json["runner_up"] = nullptr;
  if (plan.runner_up) {
    json["runner_up"] = {{"method", plan.runner_up->method},
                         {"removed", plan.runner_up->removed},
                         {"perplexity", measured(plan.runner_up->perplexity)}};
  }
  json["calibration"] = nullptr;
  if (!plan.calibration.file.empty()) {
    json["calibration"] = {{"file", plan.calibration.file},
                           {"sha256", plan.calibration.sha256},
                           {"samples", plan.calibration.samples},
                           {"seq_len", plan.calibration.seq_len},
                           {"add_bos", false}};
  }
  if (!plan.scores.greedy.removed.empty()) {
    json["sleb"] = {{"removed", plan.scores.greedy.removed},
                    {"perplexity", plan.scores.greedy.perplexity},
                    {"block_forwards", plan.scores.greedy.block_forwards},
                    {"plain_forwards", plan.scores.greedy.plain_forwards}};
  }
  if (plan.segments)
    json["segments"] = parse_json(lp::segments_to_json(*plan.segments), "segments");
  json["verified"] = outcome.comparison ? "logits" : "bit for bit";
  if (outcome.comparison) json["max_abs_logit_difference"] = outcome.comparison->max_abs_diff;
  json["out"] = o.output.out;
  json["bytes"] = outcome.bytes;
  json["seconds"] = seconds;
  json["peak_rss_bytes"] = peak_rss().count;
  return dump_json(json);
}

/// "3,8,13".
std::string numbers_text(const std::vector<std::int64_t>& numbers) {
  std::string text;
  for (const std::int64_t number : numbers) text += format("{}{}", text.empty() ? "" : ",", number);
  return text;
}

std::string result_text(const PruneOptions& o, const lp::PrunePlan& plan,
                        const lp::PruneOutcome& outcome, double seconds) {
  std::string text = format("removed layers {} of {}; {} remain\n",
                            layer_set_text(plan.chosen.removed), plan.layers, plan.kept.size());
  if (const auto rows = lp::perplexity_rows(plan); !rows.empty()) {
    text += "\n" + text_table({"model", "layers removed", "perplexity"}, rows);
    text += format("(calibration text: {} x {} tokens, no BOS)\n\n", plan.calibration.samples,
                   plan.calibration.seq_len);
  }
  if (plan.segments) {
    text += format("segments of {} layers keep {}\n",
                   numbers_text(plan.segments->segmentation.sizes(plan.layers)),
                   numbers_text(plan.segments->budgets));
  }
  if (plan.scores.greedy.plain_forwards > 0) {
    text += format("greedy search: {} block runs instead of {}\n",
                   plan.scores.greedy.block_forwards, plan.scores.greedy.plain_forwards);
  }
  text +=
      outcome.comparison
          ? format(
                "checked: logits differ from the source without these layers by at most {:.3g} ({} "
                "tokens)\n",
                outcome.comparison->max_abs_diff, outcome.comparison->tokens)
          : std::string("checked: equal, bit for bit, to the source with these layers skipped\n");
  text += format("{} in {}: {}\n", to_string(Bytes{static_cast<std::int64_t>(outcome.bytes)}),
                 format_seconds(seconds), o.output.out);
  return text +
         format("Next: espalier finetune {} --data FILE --steps 100 --out HEALED\n", o.output.out);
}

struct Pruned {
  lp::PrunePlan plan;
  lp::PruneOutcome outcome;
};

// The output is opened before layers are scored: an --out that cannot be used costs no minutes.

Pruned prune_to_gguf(const PruneOptions& o, Context& context, const lp::PruneRequest& request,
                     const lp::PruneJob& job) {
  OutputFile out = OutputFile::create(o.output.out, o.output.policy());
  Pruned result;
  result.plan = lp::plan_pruning(job.source, request, context.reporter, context.stop);
  result.outcome =
      lp::write_pruned_gguf(job, result.plan, out.partial(), context.reporter, context.stop);
  out.publish();
  return result;
}

RunFacts run_facts(const Context& context, const lp::PruneRequest& request) {
  RunFacts facts;
  facts.verb = "prune";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.seed = request.seed;
  facts.device = request.device.str();
  facts.threads = at::get_num_threads();
  return facts;
}

Pruned prune_to_folder(const PruneOptions& o, Context& context, const lp::PruneRequest& request,
                       const lp::PruneJob& job) {
  RunFolder run = RunFolder::create(o.output.out, o.output.policy(), run_facts(context, request));
  Reporter& reporter = run.log_to_file(context.reporter);
  run.add_input(job.source, "");
  Pruned result;
  result.plan = lp::plan_pruning(job.source, request, reporter, context.stop);
  const lp::Calibration& calibration = result.plan.calibration;
  if (!calibration.file.empty()) run.add_input(calibration.file, "sha256:" + calibration.sha256);
  result.outcome = lp::write_pruned_folder(job, result.plan, run, reporter, context.stop);
  run.publish();
  return result;
}

void check_iterative(const PruneOptions& o, const ModelLocation& location, const Context& context) {
  if (o.format == "gguf") {
    throw Error(ErrorKind::kUsage, "--format", "a healed model is written as a folder, not as GGUF")
        .hint("leave --format out and run `espalier convert OUT --to gguf` afterwards");
  }
  if (o.finetune.empty()) {
    throw Error(ErrorKind::kUsage, "--finetune",
                "is missing: --iterative trains the model between rounds")
        .hint("--finetune heal.yaml with at least `data: FILE` and `steps: 100`");
  }
  check_nested("finetune", o.finetune, {location.path.string(), "--out", o.output.out}, context);
}

int run_iterative(const PruneOptions& o, Context& context, const lp::PruneRequest& request,
                  const lp::PruneJob& job) {
  const Stopwatch watch;
  RunFolder run = RunFolder::create(o.output.out, o.output.policy(), run_facts(context, request));
  Reporter& reporter = run.log_to_file(context.reporter);
  run.add_input(job.source, "");
  run.add_input(o.finetune, "");
  const lp::HealFunction heal = [&](const std::filesystem::path& pruned,
                                    const std::filesystem::path& healed) {
    return heal_model(pruned, healed, o.finetune, {}, context);
  };
  const lp::IterativeOutcome done =
      lp::prune_iteratively(job, request, o.step, heal, run, reporter, context.stop);
  run.publish();
  const double last = done.rounds.empty() ? 0 : done.rounds.back().healed;
  const auto measured = [](double value) { return value > 0 ? Json(value) : Json(nullptr); };
  Json json = parse_json(lp::iterative_record(job, done), "record");
  json["schema"] = "espalier.prune/1";
  json["model"] = o.model.model;
  json["perplexity_before"] = measured(done.rounds.front().before);
  json["perplexity_after"] = measured(last);
  json["resumed_rounds"] = done.resumed_rounds;
  json["out"] = o.output.out;
  json["bytes"] = done.bytes;
  json["seconds"] = watch.seconds();
  json["peak_rss_bytes"] = peak_rss().count;
  std::string text =
      format("removed layers {} of {} in {} rounds; {} remain\n\n", layer_set_text(done.removed),
             done.layers, done.rounds.size(), done.kept.size());
  text +=
      text_table({"round", "layers removed", "perplexity before", "after removal", "after healing"},
                 lp::iterative_rows(done));
  text += format("{} in {}: {}\n", to_string(Bytes{static_cast<std::int64_t>(done.bytes)}),
                 format_seconds(watch.seconds()), o.output.out);
  context.print_result(text, dump_json(json));
  return 0;
}

int run_on_cnn(const PruneOptions& o, Context& context) {
  const char* given = !o.remove.empty()                    ? "--remove"
                      : !o.keep.empty()                    ? "--keep"
                      : !o.plan.empty()                    ? "--plan"
                      : !o.from_mergekit.empty()           ? "--from-mergekit"
                      : o.ratio                            ? "--ratio"
                      : o.count                            ? "--count"
                      : o.iterative                        ? "--iterative"
                      : !o.calibration.calibration.empty() ? "--calibration"
                                                           : nullptr;
  if (given != nullptr) {
    throw Error(ErrorKind::kUsage, given, "is for decoders, but the model is a CNN")
        .hint("--keep-layers 14 --method redtest --data DIR");
  }
  const CnnRun run{o.model.model,         o.cnn,         o.output, o.segments.rule(),
                   o.model.scalar_type(), o.cost.dry_run};
  return run_cnn_prune(run, o.cnn_prune, o.method, context);
}

/// What only a CNN takes.
void check_decoder_options(const PruneOptions& o) {
  const bool by_method = o.method == "redtest" || o.method == "magnitude";
  const char* given = by_method                           ? "--method"
                      : o.cnn_prune.keep_layers           ? "--keep-layers"
                      : !o.cnn.data.empty()               ? "--data"
                      : o.cnn_prune.importance != "layer" ? "--importance"
                                                          : nullptr;
  if (given == nullptr) return;
  throw Error(ErrorKind::kUsage, given,
              by_method ? o.method + " is for CNNs, but the model is a decoder"
                        : std::string("is for CNNs, but the model is a decoder"))
      .hint("--count 7 --method bi --calibration FILE; mag_l1 is the magnitude of decoders");
}

int run_prune(const PruneOptions& o, Context& context) {
  const Stopwatch watch;
  if (o.cnn.is_cnn(o.model.model)) return run_on_cnn(o, context);
  check_decoder_options(o);
  const ModelLocation location = o.model.locate();
  std::vector<std::filesystem::path> inputs{location.path};
  if (!o.calibration.calibration.empty()) inputs.emplace_back(o.calibration.calibration);
  for (const std::string& file : {o.scores, o.plan, o.from_mergekit, o.finetune})
    if (!file.empty()) inputs.emplace_back(file);
  check_output_apart(o.output.out, inputs);
  const DecoderConfig config = DecoderCheckpoint::open(location.path)->config();
  const lp::PruneRequest request = request_of(o, context, config);
  lp::PruneJob job;
  job.source = location.path;
  job.model = o.model.model;
  job.type = weight_type(o, location);
  job.command_line = context.command_line;
  if (o.iterative) check_iterative(o, location, context);
  if (o.cost.dry_run) {
    print_estimate(o, context, location, config, request);
    return 0;
  }
  if (o.iterative) return run_iterative(o, context, request, job);
  const Pruned done = writes_gguf(o, location) ? prune_to_gguf(o, context, request, job)
                                               : prune_to_folder(o, context, request, job);
  context.print_result(result_text(o, done.plan, done.outcome, watch.seconds()),
                       result_json(o, done.plan, done.outcome, watch.seconds()));
  return 0;
}

}  // namespace

Command prune_command() {
  return make_command<PruneOptions>(
      "prune", "Shrink", "remove layers of a model, chosen by a score or by hand", run_prune,
      {"espalier prune MODEL --count 7 --calibration text.txt --out pruned",
       "espalier prune model.gguf --remove 12-18 --out pruned.gguf",
       "espalier prune MODEL --ratio 0.25 --method ppl --scores scores.json --out pruned",
       "espalier prune MODEL --from-mergekit slices.yaml --out pruned",
       "espalier prune resnet56.th --arch resnet56 --method sglp --keep-layers 14 --data images "
       "--out "
       "pruned",
       "espalier prune MODEL --count 6 --iterative --step 2 --finetune heal.yaml --calibration "
       "text.txt --out pruned"});
}

}  // namespace espalier::cli
