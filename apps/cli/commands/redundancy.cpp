// `espalier redundancy`: score the layers of a decoder and show how alike they are.
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/eval/forward_cost.h"
#include "espalier/methods/layer_pruning/redundancy_report.h"
#include "espalier/run/run_folder.h"

#include "apps/cli/calibration_options.h"
#include "apps/cli/cnn_verbs.h"
#include "apps/cli/commands.h"
#include "apps/cli/cost_options.h"
#include "apps/cli/memory_options.h"
#include "apps/cli/model_options.h"
#include "apps/cli/output_options.h"
#include "apps/cli/scoring_cost.h"
#include "apps/cli/scoring_options.h"
#include "apps/cli/segment_options.h"

namespace espalier::cli {
namespace {

namespace lp = layer_pruning;

struct RedundancyOptions {
  ModelOptions model;
  CalibrationOptions calibration;
  OutputOptions output{.out_required = false};
  ScoringOptions scoring;
  SegmentOptions segments;
  CnnOptions cnn;
  CnnSimilarityOptions similarity;
  CostOptions cost;
  MemoryOptions memory;
  std::vector<std::string> metrics{"bi", "angular", "ppl", "cka_adj", "mag_l1"};
  std::optional<double> ratio;
  std::optional<std::int64_t> count;
  std::int64_t cka_skip_first = 1;
  double beta = 100, tau = 0.8;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    option.group("Scores");
    option("metrics", metrics,
           "layer scores to compute, all of one sweep but taylor, gradnorm, sglp and sleb",
           one_of(lp::metric_names()));
    option("count", count, "number of layers that each score is asked to choose", at_least(1));
    option("ratio", ratio, "the same as a share of the layers, rounded down; default 0.25",
           in_range(0, 0.99));
    option("cka_skip_first", cka_skip_first,
           "positions of each segment left out of CKA (massive activations)", at_least(0));
    scoring.visit(option);
    option("beta", beta, "steepness of MSRS", at_least(0));
    option("tau", tau, "CKA above which MSRS takes a pair of layers as redundant", in_range(-1, 1));
    segments.visit(option);
    calibration.visit(option);
    cnn.visit(option);
    similarity.visit(option);
    output.visit(option);
    cost.visit(option);
    memory.visit(option);
  }
};

std::int64_t layers_to_choose(const RedundancyOptions& o, std::int64_t layers) {
  lp::PruneRequest request;
  request.count = o.count;
  request.ratio = o.ratio;
  if (!o.count && !o.ratio) {
    if (layers < 2) return 0;
    request.count = std::max<std::int64_t>(1, layers / 4);
  }
  return lp::removal_size(request, layers).count;
}

void print_estimate(const RedundancyOptions& o, Context& context, const DecoderConfig& config,
                    Residency residency) {
  const ScoringCost scoring =
      scoring_cost(config, o.metrics, o.calibration.samples, o.calibration.seq_len,
                   static_cast<std::int64_t>(o.metrics.size()), o.model.scalar_type(), residency,
                   layers_to_choose(o, config.num_layers));
  CostEstimate cost;
  cost.peak_memory = {process_bytes() + scoring.bytes};
  cost.disk = {1 << 20};
  if (scoring.flops > 0)
    cost.seconds = scoring.flops / measure_flops_per_second(config, o.model.scalar_type(),
                                                            ModelOptions::device(context));
  std::string names;
  for (const std::string& metric : o.metrics) names += (names.empty() ? "" : ", ") + metric;
  cost.note = format("score {} layers by {} on {} x {} tokens", config.num_layers, names,
                     o.calibration.samples, o.calibration.seq_len);
  print_cost(context, "redundancy", cost, o.output.out);
}

/// Perplexity without each metric's choice; equal choices are measured once.
void measure_choices(lp::RedundancyResult& result, const Decoder& model, const at::Tensor& ids,
                     Reporter& reporter, const StopToken& stop) {
  if (result.scores.dense_perplexity <= 0)
    result.scores.dense_perplexity = lp::perplexity_without(model, {}, ids, reporter, stop);
  for (std::size_t i = 0; i < result.choices.size(); ++i) {
    lp::PruneChoice& choice = result.choices[i];
    for (std::size_t j = 0; j < i; ++j) {
      if (result.choices[j].removed == choice.removed)
        choice.perplexity = result.choices[j].perplexity;
    }
    if (choice.perplexity <= 0)
      choice.perplexity = lp::perplexity_without(model, choice.removed, ids, reporter, stop);
  }
}

lp::RedundancyResult measure(const RedundancyOptions& o, Context& context,
                             const std::filesystem::path& path, Reporter& reporter) {
  const std::shared_ptr<const DecoderCheckpoint> checkpoint = DecoderCheckpoint::open(path);
  const at::Device device = ModelOptions::device(context);
  lp::RedundancyResult result;
  result.model = o.model.model;
  result.command_line = context.command_line;
  result.remove = layers_to_choose(o, checkpoint->config().num_layers);
  const std::uint64_t seed =
      context.common.seed != 0 ? static_cast<std::uint64_t>(context.common.seed) : 42;
  at::Tensor ids;
  if (!o.calibration.calibration.empty()) {
    ids = lp::load_calibration(path, o.calibration.calibration, o.calibration.samples,
                               o.calibration.seq_len, o.calibration.special_in_text, seed, reporter,
                               result.calibration);
  }
  const MemoryPlan plan =
      plan_memory(o.memory, checkpoint->config(), o.model.scalar_type(), device, reporter);
  const Decoder model = Decoder::load(checkpoint, o.model.scalar_type(), device, plan.residency);
  lp::ScoreOptions options;
  options.metrics = o.metrics;
  options.remove = result.remove;
  options.cka_skip_first = o.cka_skip_first;
  options.seed = seed;
  options.gradient_batch = o.scoring.gradient_batch;
  options.taylor_per_batch = o.scoring.taylor_per_batch;
  options.memory_bytes = plan.working_bytes;
  result.scores = lp::score_layers(model, ids, options, reporter, context.stop);
  result.scores.segments = o.segments.rule();
  if (result.remove > 0) result.choices = lp::choices_of(result.scores, result.remove);
  if (ids.defined()) measure_choices(result, model, ids, reporter, context.stop);
  if (result.scores.cka.defined() && result.scores.layers > 1)
    result.msrs = msrs(result.scores.cka, o.beta, o.tau);
  result.tau = o.tau;
  return result;
}

/// Before the model is read: most metrics need a text.
void check_calibration(const RedundancyOptions& o) {
  if (!o.calibration.calibration.empty()) return;
  for (const std::string& metric : o.metrics) {
    if (!lp::needs_calibration(metric)) continue;
    throw Error(ErrorKind::kUsage, "--calibration",
                format("is missing: the metric {} needs a text", metric))
        .hint("give --calibration FILE, or only metrics of the weights: --metrics mag_l1,mag_l2");
  }
}

int run_on_cnn(const RedundancyOptions& o, Context& context) {
  if (!o.calibration.calibration.empty()) {
    throw Error(ErrorKind::kUsage, "--calibration", "is a text, but the model is a CNN")
        .hint("--data DIR with one folder of images per class");
  }
  redtest::RedundancyOptions options;
  options.estimator =
      o.similarity.cka == "biased" ? CkaEstimator::kBiased : CkaEstimator::kUnbiased;
  options.average = o.similarity.cka_average == "ratio" ? redtest::CkaAverage::kRatio
                                                        : redtest::CkaAverage::kHsic;
  options.beta = o.beta;
  options.tau = o.tau;
  const CnnRun run{o.model.model,         o.cnn,         o.output, o.segments.rule(),
                   o.model.scalar_type(), o.cost.dry_run};
  return run_cnn_redundancy(run, options, context);
}

/// What only a CNN takes.
void check_decoder_options(const RedundancyOptions& o) {
  if (!o.cnn.data.empty() || !o.similarity.is_default()) {
    throw Error(ErrorKind::kUsage,
                !o.cnn.data.empty()              ? "--data"
                : o.similarity.cka != "unbiased" ? "--cka"
                                                 : "--cka-average",
                "is for CNNs, but the model is a decoder")
        .hint("a decoder is measured on text: --calibration FILE");
  }
}

int run_redundancy(const RedundancyOptions& o, Context& context) {
  const Stopwatch watch;
  if (o.cnn.is_cnn(o.model.model)) return run_on_cnn(o, context);
  check_decoder_options(o);
  check_calibration(o);
  const ModelLocation location = o.model.locate();
  const DecoderConfig config = DecoderCheckpoint::open(location.path)->config();
  layers_to_choose(o, config.num_layers);
  o.segments.rule();
  if (o.cost.dry_run) {
    print_estimate(o, context, config,
                   plan_memory(o.memory, config, o.model.scalar_type(),
                               ModelOptions::device(context), context.reporter)
                       .residency);
    return 0;
  }
  if (o.output.out.empty()) {
    const lp::RedundancyResult result = measure(o, context, location.path, context.reporter);
    context.print_result(lp::redundancy_table(result), lp::redundancy_json(result));
    return 0;
  }
  std::vector<std::filesystem::path> inputs{location.path};
  if (!o.calibration.calibration.empty()) inputs.emplace_back(o.calibration.calibration);
  check_output_apart(o.output.out, inputs);
  RunFacts facts;
  facts.verb = "redundancy";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.seed = static_cast<std::uint64_t>(context.common.seed);
  facts.device = context.common.device;
  facts.threads = at::get_num_threads();
  RunFolder run = RunFolder::create(o.output.out, o.output.policy(), facts);
  Reporter& reporter = run.log_to_file(context.reporter);
  run.add_input(location.path, "");
  const lp::RedundancyResult result = measure(o, context, location.path, reporter);
  if (!result.calibration.file.empty())
    run.add_input(result.calibration.file, "sha256:" + result.calibration.sha256);
  lp::write_redundancy(result, run.folder());
  run.publish();
  context.print_result(lp::redundancy_table(result) +
                           format("\nscores and report in {} ({}); open {}/run/report.html\n",
                                  o.output.out, format_seconds(watch.seconds()), o.output.out),
                       lp::redundancy_json(result));
  return 0;
}

}  // namespace

Command redundancy_command() {
  return make_command<RedundancyOptions>(
      "redundancy", "Measure", "how alike a model's layers are, and which ones it could do without",
      run_redundancy,
      {"espalier redundancy MODEL --calibration text.txt --out redundancy",
       "espalier redundancy model.gguf --calibration text.txt --metrics bi,angular --count 7 "
       "--json",
       "espalier redundancy resnet56.th --arch resnet56 --data images --out redundancy"});
}

}  // namespace espalier::cli
