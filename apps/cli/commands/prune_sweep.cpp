// `espalier prune sweep`: metrics x numbers of layers x recoveries, one table and one report.
#include <algorithm>
#include <set>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/eval/choice_task.h"
#include "espalier/methods/layer_pruning/sweep.h"
#include "espalier/methods/layer_pruning/sweep_report.h"
#include "espalier/report/html_report.h"

#include "apps/cli/calibration_options.h"
#include "apps/cli/commands.h"
#include "apps/cli/healing.h"
#include "apps/cli/memory_options.h"
#include "apps/cli/model_options.h"
#include "apps/cli/nested_verb.h"
#include "apps/cli/output_options.h"
#include "apps/cli/scoring_options.h"

namespace espalier::cli {
namespace {

namespace fs = std::filesystem;
namespace lp = layer_pruning;

struct SweepOptions {
  ModelOptions model;
  CalibrationOptions calibration;
  OutputOptions output;
  ScoringOptions scoring;
  MemoryOptions memory;
  std::vector<std::string> counts, ratios, metrics{"reverse", "bi", "angular", "ppl"},
      recoveries{"none", "partial:3"}, lrs{"1e-4"}, task;
  std::string finetune, data, format, eval_text, eval_data;
  std::int64_t steps = 0, epochs = 0, batch_size = 0, train_seq_len = 0, warmup = 0,
               eval_seq_len = 128, eval_stride = 0, eval_segments = 0, limit = 0;
  double time_budget = 0;
  bool dense = true, scratch = false, keep_models = false, dry_run = false;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    option.group("Cells");
    option("counts", counts, "numbers of layers to remove: 3,7,11", placeholder("N,..."));
    option("ratios", ratios, "the same as shares of the layers, rounded down: 0.1,0.25",
           placeholder("X,..."));
    option("metrics", metrics, "layer scores that choose", one_of(lp::metric_names()));
    option("recoveries", recoveries,
           "training after the removal: none, head, partial:K, lora, qlora, dora, full",
           placeholder("NAME,..."));
    option("lrs", lrs, "learning rates of every recovery that trains", placeholder("X,..."));
    option("dense", dense, "a row for the whole model");
    option("scratch", scratch,
           "a row per number of layers for a model of that depth trained from random weights");
    option.group("Scores");
    scoring.visit(option);
    memory.visit(option);
    calibration.visit(option);
    option.group("Training");
    option("finetune", finetune, "recipe of `espalier finetune` that every recovery starts from",
           placeholder("FILE"));
    option("data", data, "training data, instead of the recipe's", placeholder("FILE"));
    option("format", format, "what --data holds: text, alpaca, dolly, chat", placeholder("NAME"));
    option("steps", steps, "optimizer steps; give this or --epochs", at_least(0));
    option("epochs", epochs, "passes over the data; give this or --steps", at_least(0));
    option("batch_size", batch_size, "rows per step; 0: the recipe's", at_least(0));
    option("train_seq_len", train_seq_len, "tokens per row; 0: the recipe's", at_least(0));
    option("warmup", warmup, "steps over which the rate rises; 0: the recipe's", at_least(0));
    option.group("Evaluation");
    option("eval_text", eval_text, "perplexity of this text", placeholder("FILE"));
    option("eval_seq_len", eval_seq_len, "tokens per evaluated segment", at_least(2));
    option("eval_stride", eval_stride, "as --stride of eval", at_least(0));
    option("eval_segments", eval_segments, "only the first N segments; 0 takes all", at_least(0));
    option("task", task, "tasks of `espalier eval`, such as piqa", placeholder("NAME,..."));
    option("eval_data", eval_data, "folder of the tasks' files", placeholder("DIR"));
    option("limit", limit, "only the first N items of each task; 0 takes all", at_least(0));
    option.group("Running");
    option("time_budget", time_budget,
           "seconds; no cell is begun that would end later, --resume goes on; 0 is no limit",
           at_least(0));
    option("keep_models", keep_models, "keep each trained model under OUT/models");
    option("dry_run", dry_run, "list the cells and stop (without the layers a score would choose)");
    output.visit(option);
  }
};

std::vector<double> numbers_of(const std::vector<std::string>& words, const char* flag) {
  std::vector<double> numbers;
  for (const std::string& word : words) {
    double value = 0;
    detail::parse_value(flag, word, at_least(0), value);
    numbers.push_back(value);
  }
  return numbers;
}

std::vector<std::int64_t> counts_of(const SweepOptions& o, std::int64_t layers) {
  std::set<std::int64_t> counts;
  for (const std::string& word : o.counts) {
    lp::PruneRequest one;
    std::int64_t count = 0;
    detail::parse_value("--counts", word, {}, count);
    one.count = count;
    counts.insert(lp::removal_size(one, layers).count);
  }
  for (const double ratio : numbers_of(o.ratios, "--ratios")) {
    lp::PruneRequest one;
    one.ratio = ratio;
    counts.insert(lp::removal_size(one, layers).count);
  }
  if (counts.empty()) {
    throw Error(ErrorKind::kUsage, "--counts", "neither --counts nor --ratios say how much goes")
        .hint("--counts 3,7,11 or --ratios 0.1,0.25");
  }
  return {counts.begin(), counts.end()};
}

/// Words for `finetune` that all cells share.
std::vector<std::string> training_words(const SweepOptions& o, const Context& context) {
  std::vector<std::string> words{"--dtype", o.model.dtype};
  const auto text = [&](const char* flag, const std::string& value) {
    if (!value.empty()) words.insert(words.end(), {flag, value});
  };
  const auto number = [&](const char* flag, std::int64_t value) {
    if (value > 0) words.insert(words.end(), {flag, format("{}", value)});
  };
  text("--data", o.data);
  text("--format", o.format);
  number("--steps", o.steps);
  number("--epochs", o.epochs);
  number("--batch-size", o.batch_size);
  number("--seq-len", o.train_seq_len);
  number("--warmup", o.warmup);
  number("--seed", context.common.seed);
  return words;
}

std::vector<std::string> recovery_words(const lp::Recovery& recovery, double lr) {
  std::vector<std::string> words{"--mode", recovery.mode, "--lr", format("{}", lr)};
  if (recovery.mode == "partial")
    words.insert(words.end(), {"--last", format("{}", recovery.last)});
  return words;
}

std::vector<std::string> perplexity_words(const SweepOptions& o) {
  return {"--task",         "ppl",
          "--text",         o.eval_text,
          "--seq-len",      format("{}", o.eval_seq_len),
          "--stride",       format("{}", o.eval_stride),
          "--max-segments", format("{}", o.eval_segments),
          "--dtype",        o.model.dtype};
}

std::vector<std::string> task_words(const SweepOptions& o) {
  std::string tasks;
  for (const std::string& task : o.task) tasks += (tasks.empty() ? "" : ",") + task;
  std::vector<std::string> words{"--task", tasks, "--data", o.eval_data, "--dtype", o.model.dtype};
  if (o.limit > 0) words.insert(words.end(), {"--limit", format("{}", o.limit)});
  return words;
}

/// Everything that would be found out only after minutes.
void check_before(const SweepOptions& o, const Context& context, const lp::SweepRequest& request) {
  if (o.eval_text.empty() && o.task.empty()) {
    throw Error(ErrorKind::kUsage, "--eval-text", "or --task is needed: nothing would be measured")
        .hint("--eval-text wiki.test.txt");
  }
  if (!o.task.empty() && o.eval_data.empty()) {
    throw Error(ErrorKind::kUsage, "--eval-data", "is needed by --task")
        .hint("--eval-data DIR with the tasks' files");
  }
  // Their files are read here already: a missing one must not wait for the first cell.
  if (!o.task.empty()) {
    for (const LoadedTask& task :
         load_tasks(o.task, o.eval_data, {.limit = o.limit}, silent_reporter()).tasks) {
      if (std::ranges::find(task.task->metrics, MetricKind::kAcc) != task.task->metrics.end())
        continue;
      throw Error(ErrorKind::kUsage, "--task",
                  format("{} has no accuracy to compare models by", task.task->name))
          .hint("--eval-text FILE compares perplexities");
    }
  }
  for (const std::string& metric : request.metrics) {
    if (!lp::needs_calibration(metric) || request.scoring.calibration_file) continue;
    throw Error(ErrorKind::kUsage, "--calibration",
                format("is missing: the metric {} needs a text", metric))
        .hint("--calibration FILE with text of the kind the model is for, no test split");
  }
  const std::string model = request.model.string();
  const auto with_model = [&](std::vector<std::string> words) {
    words.insert(words.begin(), model);
    return words;
  };
  if (!o.eval_text.empty()) check_nested("eval", "", with_model(perplexity_words(o)), context);
  if (!o.task.empty()) check_nested("eval", "", with_model(task_words(o)), context);
  for (const lp::Recovery& recovery : request.recoveries) {
    if (!recovery.trains()) continue;
    std::vector<std::string> words = with_model(training_words(o, context));
    const std::vector<std::string> more = recovery_words(recovery, 1e-4);
    words.insert(words.end(), more.begin(), more.end());
    words.insert(words.end(), {"--out", o.output.out});
    check_nested("finetune", o.finetune, words, context);
  }
}

void warn_of_leaks(const SweepOptions& o, Reporter& reporter) {
  if (o.eval_text.empty()) return;
  const std::string evaluated = sha256_file(o.eval_text);
  const auto same = [&](const std::string& file) {
    return !file.empty() && sha256_file(file) == evaluated;
  };
  if (same(o.calibration.calibration)) {
    reporter.warn(
        format("test leak: {} is the text that layers are chosen on; its perplexities "
               "flatter the metrics that read it",
               o.eval_text));
  }
  if (same(o.data)) {
    reporter.warn(format(
        "test leak: {} is the training text itself; perplexities after training say nothing about "
        "other text",
        o.eval_text));
  }
}

/// What results depend on besides the cell: a resumed sweep with other settings starts over.
std::string settings_of(const SweepOptions& o, const Context& context, const fs::path& model) {
  const auto file = [](const std::string& path) {
    std::error_code code;
    const auto bytes = path.empty() ? 0 : fs::file_size(path, code);
    return Json{{"path", path}, {"bytes", bytes}};
  };
  Json json;
  json["model"] = model.string();
  json["training"] = training_words(o, context);
  json["recipe"] = o.finetune.empty() ? std::string() : sha256_file(o.finetune);
  json["data"] = file(o.data);
  if (!o.eval_text.empty()) json["perplexity"] = perplexity_words(o);
  json["eval_text"] = file(o.eval_text);
  if (!o.task.empty()) json["tasks"] = task_words(o);
  return json.dump();
}

lp::SweepRequest request_of(const SweepOptions& o, Context& context, const fs::path& model) {
  lp::SweepRequest request;
  const DecoderConfig config = DecoderCheckpoint::open(model)->config();
  request.model = model;
  request.counts = counts_of(o, config.num_layers);
  request.metrics = o.metrics;
  for (const std::string& text : o.recoveries)
    request.recoveries.push_back(lp::parse_recovery(text));
  request.rates = numbers_of(o.lrs, "--lrs");
  request.dense = o.dense;
  request.scratch = o.scratch;
  request.time_budget = o.time_budget;
  request.keep_models = o.keep_models;
  request.settings = settings_of(o, context, model);
  lp::PruneRequest& scoring = request.scoring;
  if (!o.calibration.calibration.empty()) scoring.calibration_file = o.calibration.calibration;
  scoring.samples = o.calibration.samples;
  scoring.seq_len = o.calibration.seq_len;
  scoring.special_in_text = o.calibration.special_in_text;
  scoring.gradient_batch = o.scoring.gradient_batch;
  scoring.taylor_per_batch = o.scoring.taylor_per_batch;
  if (context.common.seed != 0) scoring.seed = static_cast<std::uint64_t>(context.common.seed);
  scoring.type = o.model.scalar_type();
  scoring.device = ModelOptions::device(context);
  const MemoryPlan memory =
      plan_memory(o.memory, config, scoring.type, scoring.device, context.reporter);
  scoring.residency = memory.residency;
  scoring.memory_bytes = memory.working_bytes;
  return request;
}

lp::SweepHooks hooks_of(const SweepOptions& o, Context& context) {
  lp::SweepHooks hooks;
  hooks.heal = [&o, &context](const fs::path& model, const fs::path& healed,
                              const lp::SweepCell& cell) {
    std::vector<std::string> words = training_words(o, context);
    const std::vector<std::string> more = recovery_words(cell.recovery, cell.lr);
    words.insert(words.end(), more.begin(), more.end());
    return heal_model(model, healed, o.finetune, words, context);
  };
  hooks.evaluate = [&o, &context](const fs::path& model) {
    Json both;
    both["results"] = Json::object();
    const auto results = [&](std::vector<std::string> words) {
      words.insert(words.begin(), model.string());
      return parse_json(run_nested("eval", "", words, context), "eval").at("results");
    };
    if (!o.eval_text.empty()) both["results"]["ppl"] = results(perplexity_words(o)).at("ppl");
    if (!o.task.empty()) {
      // Of a group its own score, not those of its 57 members.
      const Json scores = results(task_words(o));
      for (const std::string& task : o.task) both["results"][task] = scores.at(task);
    }
    return dump_json(both);
  };
  return hooks;
}

int list_cells(const SweepOptions& o, Context& context, const lp::SweepRequest& request) {
  std::vector<std::vector<std::string>> rows;
  Json json = {{"schema", "espalier.sweep/1"}, {"dry_run", true}, {"cells", Json::array()}};
  const auto add = [&](std::int64_t count, const std::string& metric,
                       const lp::Recovery& recovery) {
    const std::string rates =
        recovery.trains() ? format("{}", request.rates.size()) : std::string("-");
    rows.push_back({format("{}", count), metric, recovery.name, rates});
    json["cells"].push_back({{"remove", count}, {"metric", metric}, {"recovery", recovery.name}});
  };
  if (request.dense) add(0, "dense", {});
  for (const std::int64_t count : request.counts) {
    for (const std::string& metric : request.metrics)
      for (const lp::Recovery& recovery : request.recoveries) add(count, metric, recovery);
    if (request.scratch) add(count, "scratch", lp::parse_recovery("full"));
  }
  json["out"] = o.output.out;
  context.print_result(text_table({"cut", "metric", "recovery", "rates"}, rows), dump_json(json));
  return 0;
}

int run_prune_sweep(const SweepOptions& o, Context& context) {
  const Stopwatch watch;
  const ModelLocation location = o.model.locate();
  const lp::SweepRequest request = request_of(o, context, location.path);
  check_before(o, context, request);
  if (o.dry_run) return list_cells(o, context, request);
  std::vector<fs::path> inputs{location.path};
  for (const std::string& file : {o.calibration.calibration, o.data, o.eval_text, o.finetune})
    if (!file.empty()) inputs.emplace_back(file);
  check_output_apart(o.output.out, inputs);
  warn_of_leaks(o, context.reporter);
  RunFacts facts;
  facts.verb = "prune sweep";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.seed = request.scoring.seed;
  facts.device = request.scoring.device.str();
  facts.threads = at::get_num_threads();
  RunFolder run = RunFolder::create(o.output.out, o.output.policy(), facts);
  if (o.output.resume) take_over(o.output.out, run.folder(), {"cells", "scores"});
  Reporter& reporter = run.log_to_file(context.reporter);
  for (const fs::path& input : inputs) run.add_input(input, "");
  const lp::SweepHooks hooks = hooks_of(o, context);
  const lp::SweepOutcome outcome = lp::run_sweep(request, hooks, run, reporter, context.stop);
  if (outcome.complete) run.publish();
  const lp::SweepTable best = lp::best_rates(outcome);
  std::string text = text_table(best.columns, best.rows);
  std::int64_t left = 0;
  for (const lp::SweepRow& row : outcome.rows)
    left += !row.result && row.cell.refused.empty() ? 1 : 0;
  text += outcome.complete
              ? format("\n{} cells, {} of them now, in {}; open {}/run/report.html\n",
                       outcome.rows.size(), outcome.computed, format_seconds(watch.seconds()),
                       o.output.out)
              : format(
                    "\n{} cells are left; the same command with --resume goes on ({} were run "
                    "now, in {})\n",
                    left, outcome.computed, format_seconds(watch.seconds()));
  Json json = parse_json(lp::sweep_json(request, outcome), "sweep");
  json["model"] = o.model.model;
  json["cells_left"] = left;
  json["seconds"] = watch.seconds();
  json["out"] = o.output.out;
  context.print_result(text, dump_json(json));
  return 0;
}

}  // namespace

Command prune_sweep_command() {
  return make_command<SweepOptions>(
      "prune sweep", "Shrink",
      "numbers of layers x scores x recoveries: one table and one report, resumable",
      run_prune_sweep,
      {"espalier prune sweep MODEL --counts 3,7 --metrics reverse,bi --calibration text.txt "
       "--eval-text heldout.txt --recoveries none --out sweep",
       "espalier prune sweep MODEL --ratios 0.25 --recoveries none,head,partial:3,lora --lrs "
       "1e-5,1e-4 --data train.txt --steps 200 --calibration text.txt --eval-text heldout.txt "
       "--scratch --out sweep --time-budget 500 --resume"});
}

}  // namespace espalier::cli
