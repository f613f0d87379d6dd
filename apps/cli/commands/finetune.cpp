// `espalier finetune`: heal or adapt a model on a text. This release trains whole layers (partial,
// full).
#include <ATen/Parallel.h>

#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/methods/layer_pruning/finetune_estimate.h"
#include "espalier/methods/layer_pruning/finetune_job.h"

#include "apps/cli/commands.h"
#include "apps/cli/cost_options.h"
#include "apps/cli/model_options.h"
#include "apps/cli/output_options.h"

namespace espalier::cli {
namespace {

namespace lp = layer_pruning;

struct FinetuneOptions {
  ModelOptions model;
  OutputOptions output;
  CostOptions cost;
  std::string mode = "partial", data, format = "text", lr_decay = "linear", prefix_cache = "auto",
              eval_text;
  std::int64_t last = 3, rank = 8, steps = 0, epochs = 0, batch_size = 8, micro_batch = 0,
               seq_len = 128, warmup = 0, checkpoint_every = 100;
  std::int64_t eval_seq_len = 0, eval_segments = 0;
  double lr = 1e-4, weight_decay = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, clip = 1.0;
  bool special_in_text = true;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    output.visit(option);
    option.group("What trains");
    option("mode", mode, "partial: output head, final norm and the last layers; full: everything",
           one_of({"partial", "full", "lora", "qlora", "dora"}));
    option("last", last,
           "with --mode partial: how many of the last layers train, besides head and norm",
           at_least(0));
    option("rank", rank, "rank of the adapters of --mode lora, qlora and dora", at_least(1));
    option.group("Data");
    option("data", data, "the training text, read as it stands, cut into rows of --seq-len tokens",
           placeholder("FILE") | required());
    option("format", format, "what --data holds", one_of({"text", "alpaca", "dolly", "chat"}));
    option("seq_len", seq_len, "tokens per row", at_least(8));
    option("special_in_text", special_in_text,
           "special tokens written in the text become their ids; off takes them as letters");
    option.group("Training");
    option("steps", steps, "optimizer steps; give this or --epochs", at_least(0));
    option("epochs", epochs, "passes over the data; give this or --steps", at_least(0));
    option("batch_size", batch_size, "rows per optimizer step", at_least(1));
    option("micro_batch", micro_batch,
           "rows per forward and backward pass, to save memory; 0 takes the whole batch",
           at_least(0));
    option("lr", lr, "highest learning rate");
    option("lr_decay", lr_decay, "how the rate falls after the warm-up",
           one_of({"linear", "cosine", "constant"}));
    option("warmup", warmup, "steps over which the rate rises from 0", at_least(0));
    option("weight_decay", weight_decay, "AdamW's decay of matrices", at_least(0));
    option("beta1", beta1, "AdamW's average of gradients", in_range(0, 1));
    option("beta2", beta2, "AdamW's average of squared gradients", in_range(0, 1));
    option("eps", eps, "AdamW's smallest divisor", at_least(0));
    option("clip", clip, "largest norm of all gradients together; 0 is off", at_least(0));
    option("prefix_cache", prefix_cache,
           "compute the frozen layers once and keep their output on disk while training; auto does "
           "when it pays",
           one_of({"auto", "off"}));
    option("checkpoint_every", checkpoint_every,
           "steps between checkpoints; 0 saves only on Ctrl-C and at the end", at_least(0));
    option.group("Evaluation");
    option("eval_text", eval_text, "perplexity of this text before and after", placeholder("FILE"));
    option("eval_seq_len", eval_seq_len, "tokens per evaluated segment; 0 takes --seq-len",
           at_least(0));
    option("eval_segments", eval_segments, "evaluate only the first N segments; 0 takes all",
           at_least(0));
    cost.visit(option);
  }
};

void check_supported(const FinetuneOptions& o) {
  if (o.mode != "partial" && o.mode != "full") {
    throw Error(ErrorKind::kUnsupported, "--mode",
                format("'{}' is not in this release, there are: partial, full", o.mode))
        .hint("--mode partial --last 3");
  }
  if (o.format != "text") {
    throw Error(ErrorKind::kUnsupported, "--format",
                format("'{}' is not in this release, there is: text", o.format))
        .hint("--format text");
  }
}

lp::FinetuneOptions training_options(const FinetuneOptions& o, std::int64_t seed) {
  lp::FinetuneOptions t;
  t.mode = o.mode == "full" ? lp::TuneMode::kFull : lp::TuneMode::kPartial;
  t.last = o.last;
  t.seq_len = o.seq_len;
  t.batch_size = o.batch_size;
  t.micro_batch = o.micro_batch;
  t.steps = o.steps;
  t.epochs = o.epochs;
  t.lr = o.lr;
  t.weight_decay = o.weight_decay;
  t.beta1 = o.beta1;
  t.beta2 = o.beta2;
  t.eps = o.eps;
  t.clip = o.clip;
  t.warmup = o.warmup;
  t.decay = parse_lr_decay(o.lr_decay);
  t.prefix_cache = o.prefix_cache == "off" ? lp::PrefixCache::kOff : lp::PrefixCache::kAuto;
  t.checkpoint_every = o.checkpoint_every;
  t.seed = static_cast<std::uint64_t>(seed);
  t.compute = o.model.scalar_type();
  return t;
}

lp::FinetuneJob make_job(const FinetuneOptions& o, const Context& context,
                         const ModelLocation& location) {
  lp::FinetuneJob job;
  job.source = location.path;
  job.options = training_options(o, context.common.seed);
  job.device = ModelOptions::device(context);
  job.special_in_text = o.special_in_text;
  job.command_line = context.command_line;
  if (!o.eval_text.empty()) job.eval_text = o.eval_text;
  job.eval_options.seq_len = o.eval_seq_len > 0 ? o.eval_seq_len : o.seq_len;
  job.eval_options.max_segments = o.eval_segments;
  return job;
}

std::int64_t stored_bytes(const std::filesystem::path& model) {
  if (!std::filesystem::is_directory(model))
    return static_cast<std::int64_t>(std::filesystem::file_size(model));
  return static_cast<std::int64_t>(HfFolder::open(model).weight_bytes());
}

void print_estimate(Context& context, const FinetuneOptions& o, const lp::FinetuneEstimate& e,
                    at::Device device) {
  CostEstimate cost;
  cost.peak_memory = {device.is_cpu() ? e.peak_bytes : 0};
  cost.peak_device_memory = {device.is_cpu() ? 0 : e.peak_bytes};
  cost.disk = {e.disk_bytes};
  cost.seconds = e.seconds;
  cost.note = format("{} steps on {} parameters; prefix cache {}", format_count(e.steps),
                     format_count(e.trainable_parameters),
                     e.cache_bytes > 0 ? to_string(Bytes{e.cache_bytes}) : std::string("not used"));
  print_cost(context, "finetune", cost, o.output.out);
}

std::string result_json(const FinetuneOptions& o, const lp::FinetuneOutcome& outcome,
                        at::Device device, double seconds) {
  const lp::FinetuneResult& r = outcome.training;
  Json json;
  json["schema"] = "espalier.finetune/1";
  json["model"] = o.model.model;
  json["mode"] = o.mode;
  json["steps"] = r.steps;
  json["resumed_from"] = r.resumed_from;
  json["loss_first"] = r.loss_first;
  json["loss_last"] = r.loss_last;
  json["tokens"] = r.tokens;
  json["tokens_per_second"] = r.tokens_per_second;
  json["peak_rss_bytes"] = peak_rss().count;
  json["peak_device_bytes"] = peak_device_bytes(device);
  json["trainable_parameters"] = r.trainable_parameters;
  json["untied_bytes"] = r.untied_bytes;
  json["prefix_cache_bytes"] = r.prefix_cache_bytes;
  json["prefix_seconds"] = r.prefix_seconds;
  json["training_seconds"] = r.seconds;
  json["seconds"] = seconds;
  if (outcome.before) json["perplexity_before"] = outcome.before->perplexity;
  if (outcome.after) json["perplexity_after"] = outcome.after->perplexity;
  json["out"] = o.output.out;
  return dump_json(json);
}

std::string result_text(const FinetuneOptions& o, const lp::FinetuneOutcome& outcome) {
  const lp::FinetuneResult& r = outcome.training;
  std::string text;
  if (outcome.before && outcome.after) {
    text += format("perplexity {:.4f} -> {:.4f} ({} segments of {})\n", outcome.before->perplexity,
                   outcome.after->perplexity, outcome.after->segments, o.eval_text);
  }
  text += format("loss {:.4f} -> {:.4f} in {} steps, {} tokens, {:.0f} tokens/s\n", r.loss_first,
                 r.loss_last, r.steps, format_count(r.tokens), r.tokens_per_second);
  text += format("{} parameters trained; model in {}, report in {}/run/report.html\n",
                 format_count(r.trainable_parameters), o.output.out, o.output.out);
  return text + format("Next: espalier eval {} --task ppl --text FILE --seq-len {}\n", o.output.out,
                       o.seq_len);
}

RunFacts run_facts(const lp::FinetuneJob& job, const Context& context) {
  RunFacts facts;
  facts.verb = "finetune";
  facts.command_line = context.command_line;
  facts.resolved_recipe = context.resolved_recipe;
  facts.seed = job.options.seed;
  facts.device = job.device.str();
  facts.threads = at::get_num_threads();
  return facts;
}

int run_finetune(const FinetuneOptions& o, Context& context) {
  check_supported(o);
  const Stopwatch watch;
  const ModelLocation location = o.model.locate();
  lp::FinetuneJob job = make_job(o, context, location);
  std::vector<std::filesystem::path> inputs{location.path, o.data};
  if (job.eval_text) inputs.push_back(*job.eval_text);
  check_output_apart(o.output.out, inputs);
  const DecoderConfig config = DecoderCheckpoint::open(location.path)->config();
  lp::check_finetune_options(job.options, config);
  const Tokenizer tokenizer = Tokenizer::load(location.path);
  job.eval_options.add_bos = tokenizer.adds_bos() && tokenizer.bos();
  // Before the text is read: an --out that cannot be written should not cost a minute of
  // tokenising.
  std::optional<RunFolder> run;
  if (!o.cost.dry_run)
    run = RunFolder::create(o.output.out, o.output.policy(), run_facts(job, context));
  Reporter& reporter = run ? run->log_to_file(context.reporter) : context.reporter;
  const TokenText text = load_token_text(o.data, tokenizer, reporter, o.special_in_text);
  const std::int64_t rows = cut_segments(text, o.seq_len).size(0);
  const lp::FinetuneEstimate estimate =
      lp::estimate_finetune(config, job.options, rows, stored_bytes(location.path), job.device);
  if (!run) {
    print_estimate(context, o, estimate, job.device);
    return 0;
  }
  run->add_input(location.path, "");
  run->add_input(o.data, "sha256:" + text.sha256);
  run->add_fact("predicted_peak_bytes", format("{}", estimate.peak_bytes));
  run->add_fact("predicted_seconds", format("{}", estimate.seconds));
  const lp::FinetuneOutcome outcome =
      lp::run_finetune_job(job, text, tokenizer, *run, reporter, context.stop);
  run->publish();
  context.print_result(result_text(o, outcome),
                       result_json(o, outcome, job.device, watch.seconds()));
  return 0;
}

}  // namespace

Command finetune_command() {
  return make_command<FinetuneOptions>(
      "finetune", "Train", "heal or adapt a model: its head and last layers, or all of it",
      run_finetune,
      {"espalier finetune pruned --data corpus.txt --steps 100 --out healed",
       "espalier finetune pruned --mode partial --last 3 --data corpus.txt --epochs 2 --lr 1e-4 "
       "--warmup 10 --eval-text heldout.txt --out healed"});
}

}  // namespace espalier::cli
