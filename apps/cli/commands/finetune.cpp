// `espalier finetune`: heal or adapt a model: whole layers (partial, full) or adapters (lora,
// qlora, dora), on texts, instructions or chats.
#include <ATen/Parallel.h>

#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/methods/layer_pruning/finetune_estimate.h"
#include "espalier/methods/layer_pruning/finetune_job.h"
#include "espalier/models/decoder/adapters.h"

#include "apps/cli/commands.h"
#include "apps/cli/cost_options.h"
#include "apps/cli/model_options.h"
#include "apps/cli/output_options.h"
#include "apps/cli/sft_options.h"

namespace espalier::cli {
namespace {

namespace lp = layer_pruning;

struct FinetuneOptions {
  ModelOptions model;
  OutputOptions output;
  CostOptions cost;
  SftDataOptions sft;
  std::string mode = "partial", save = "model", lr_decay = "linear", prefix_cache = "auto",
              cuda_graph = "auto", eval_text, init_adapter;
  std::vector<std::string> target_modules, modules_to_save;
  std::int64_t last = 3, rank = 8, steps = 0, epochs = 0, batch_size = 8, micro_batch = 0,
               warmup = 0, checkpoint_every = 100, eval_every = 0;
  std::int64_t eval_seq_len = 0, eval_segments = 0;
  double lr = 1e-4, weight_decay = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, clip = 1.0;
  double alpha = 16, dropout = 0;
  bool rslora = false, gradient_checkpointing = false;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    output.visit(option);
    option.group("What trains");
    option("mode", mode,
           "partial: output head, final norm and the last layers; lora, dora: adapters on every "
           "layer; qlora: adapters on a base in 4 bits (NF4); full: everything",
           one_of({"partial", "full", "lora", "qlora", "dora"}));
    option("last", last,
           "with --mode partial: how many of the last layers train, besides head and norm",
           at_least(0));
    option("save", save,
           "with --mode partial and full: model, a whole one, or delta, a file of the trained "
           "tensors alone for `espalier merge-adapter`",
           one_of({"model", "delta"}));
    option.group("Adapters (--mode lora, qlora, dora)");
    option("rank", rank, "rank of the adapters", at_least(1));
    option("alpha", alpha, "adapters count alpha / rank times");
    option("dropout", dropout, "share of an adapter's input that is dropped while training",
           in_range(0, 0.99));
    option("rslora", rslora, "rank-stabilised: alpha / sqrt(rank) instead");
    option("target_modules", target_modules,
           "linear layers that get an adapter, by the end of their names; default: q_proj, k_proj, "
           "v_proj, o_proj, gate_proj, up_proj, down_proj, for phi3 their fused forms; all-linear "
           "takes what there is",
           placeholder("NAME,..."));
    option("modules_to_save", modules_to_save,
           "modules trained whole beside the adapters, e.g. lm_head", placeholder("NAME,..."));
    option("init_adapter", init_adapter, "a PEFT adapter to go on from; its settings win",
           placeholder("DIR"));
    sft.visit(option);
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
    option(
        "gradient_checkpointing", gradient_checkpointing,
        "keep each layer's input alone and run the layer again in the backward pass: less memory, "
        "a third more time");
    option("cuda_graph", cuda_graph,
           "on CUDA: record a step once and replay it; auto does where that is possible",
           one_of({"auto", "off"}));
    option("checkpoint_every", checkpoint_every,
           "steps between checkpoints; 0 saves only on Ctrl-C and at the end", at_least(0));
    option.group("Evaluation");
    option("eval_text", eval_text, "perplexity of this text before and after", placeholder("FILE"));
    option("eval_every", eval_every,
           "steps between losses of the --holdout rows; the best is kept. 0 measures at the end",
           at_least(0));
    option("eval_seq_len", eval_seq_len, "tokens per evaluated segment; 0 takes --seq-len",
           at_least(0));
    option("eval_segments", eval_segments, "evaluate only the first N segments; 0 takes all",
           at_least(0));
    cost.visit(option);
  }
};

PeftConfig adapter_config(const FinetuneOptions& o) {
  PeftConfig config;
  config.base_model = o.model.model;
  config.rank = o.rank;
  config.alpha = o.alpha;
  config.dropout = o.dropout;
  config.rslora = o.rslora;
  config.dora = o.mode == "dora";
  config.all_linear = o.target_modules == std::vector<std::string>{"all-linear"};
  if (!config.all_linear) config.targets.names = o.target_modules;
  config.modules_to_save = o.modules_to_save;
  return config;
}

lp::FinetuneOptions training_options(const FinetuneOptions& o, std::int64_t seed) {
  lp::FinetuneOptions t;
  t.mode = lp::parse_tune_mode(o.mode);
  t.last = o.last;
  t.adapter = adapter_config(o);
  t.gradient_checkpointing = o.gradient_checkpointing;
  t.capture = o.cuda_graph == "auto";
  t.eval_every = o.eval_every;
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
  job.special_in_text = o.sft.special_in_text;
  if (!o.init_adapter.empty()) job.init_adapter = o.init_adapter;
  job.delta = o.save == "delta";
  if (job.delta && lp::uses_adapters(job.options.mode)) {
    throw Error(
        ErrorKind::kUsage, "--save delta",
        format("goes with --mode partial and full: --mode {} writes an adapter anyway", o.mode))
        .hint("leave --save out");
  }
  job.command_line = context.command_line;
  if (!o.eval_text.empty()) job.eval_text = o.eval_text;
  job.eval_options.seq_len = o.eval_seq_len;
  job.eval_options.max_segments = o.eval_segments;
  return job;
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

std::string result_json(const FinetuneOptions& o, const lp::FinetuneData& data,
                        const lp::FinetuneOutcome& outcome, at::Device device, double seconds) {
  const lp::FinetuneResult& r = outcome.training;
  Json json;
  json["schema"] = "espalier.finetune/1";
  json["model"] = o.model.model;
  json["mode"] = o.mode;
  json["saved"] = lp::uses_adapters(lp::parse_tune_mode(o.mode)) ? "adapter" : o.save;
  json["data"] = {{"file", o.sft.data},
                  {"sha256", data.sha256},
                  {"format", data.format},
                  {"seq_len", data.seq_len},
                  {"rows", data.rows.size()},
                  {"tokens", data.rows.tokens()},
                  {"predicted_tokens", data.rows.predicted()},
                  {"rows_read", data.rows.counts.read},
                  {"rows_without_answer", data.rows.counts.without_answer},
                  {"rows_answer_cut", data.rows.counts.answer_cut},
                  {"rows_too_long", data.rows.counts.too_long},
                  {"rows_truncated", data.rows.counts.truncated}};
  if (!r.held_out.empty()) {
    json["held_out_loss"] = r.held_out.back().second;
    json["held_out"] = r.held_out;
    json["best_step"] = r.best_step;
  }
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

std::string result_text(const FinetuneOptions& o, const lp::FinetuneData& data,
                        const lp::FinetuneOutcome& outcome) {
  const lp::FinetuneResult& r = outcome.training;
  const std::string kind = lp::uses_adapters(lp::parse_tune_mode(o.mode)) ? "adapter" : o.save;
  std::string text;
  if (outcome.before && outcome.after) {
    text += format("perplexity {:.4f} -> {:.4f} ({} segments of {})\n", outcome.before->perplexity,
                   outcome.after->perplexity, outcome.after->segments, o.eval_text);
  }
  text += format("loss {:.4f} -> {:.4f} in {} steps, {} tokens, {:.0f} tokens/s\n", r.loss_first,
                 r.loss_last, r.steps, format_count(r.tokens), r.tokens_per_second);
  if (r.held_out.size() > 1)
    text += format("held-out loss {:.4f} -> {:.4f}, best at step {}\n", r.held_out.front().second,
                   r.held_out.back().second, r.best_step);
  else if (!r.held_out.empty())
    text += format("held-out loss {:.4f}\n", r.held_out.back().second);
  text += format("{} parameters trained; {} in {}, report in {}/run/report.html\n",
                 format_count(r.trainable_parameters), kind, o.output.out, o.output.out);
  if (kind != "model") {
    return text + format("Next: espalier merge-adapter {} --adapter {}{} --out MERGED\n",
                         o.model.model, o.output.out, kind == "delta" ? "/delta.safetensors" : "");
  }
  return text + format("Next: espalier eval {} --task ppl --text FILE --seq-len {}\n", o.output.out,
                       data.seq_len);
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

lp::FinetuneData load_data(const FinetuneOptions& o, const Tokenizer& tokenizer, Reporter& reporter,
                           const StopToken& stop) {
  SftParts parts = load_sft_parts(o.sft, tokenizer, reporter, stop);
  lp::FinetuneData data;
  data.path = o.sft.data;
  data.sha256 = parts.training.sha256;
  data.format = sft_format_name(parts.training.format);
  data.seq_len = parts.training.cutoff;
  data.rows = std::move(parts.training.rows);
  data.held_out = std::move(parts.held_out);
  return data;
}

int run_finetune(const FinetuneOptions& o, Context& context) {
  const Stopwatch watch;
  const ModelLocation location = o.model.locate();
  lp::FinetuneJob job = make_job(o, context, location);
  std::vector<std::filesystem::path> inputs{location.path, o.sft.data};
  if (job.eval_text) inputs.push_back(*job.eval_text);
  if (job.init_adapter) inputs.push_back(*job.init_adapter);
  check_output_apart(o.output.out, inputs);
  const DecoderConfig config = DecoderCheckpoint::open(location.path)->config();
  if (o.target_modules.empty()) job.options.adapter.targets.names = default_target_modules(config);
  lp::check_finetune_options(job.options, config);
  const Tokenizer tokenizer = Tokenizer::load(location.path);
  job.eval_options.add_bos = tokenizer.adds_bos() && tokenizer.bos();
  // Before the data is read: an --out that cannot be written should not cost a minute of
  // tokenising.
  std::optional<RunFolder> run;
  if (!o.cost.dry_run)
    run = RunFolder::create(o.output.out, o.output.policy(), run_facts(job, context));
  Reporter& reporter = run ? run->log_to_file(context.reporter) : context.reporter;
  const lp::FinetuneData data = load_data(o, tokenizer, reporter, context.stop);
  lp::check_rows(data.rows, config);
  if (job.eval_options.seq_len == 0) job.eval_options.seq_len = data.seq_len;
  const lp::FinetuneEstimate estimate = lp::estimate_finetune(
      config, job.options, data.rows,
      job.delta ? 0 : static_cast<std::int64_t>(stored_weight_bytes(location.path)), job.device);
  if (!run) {
    print_estimate(context, o, estimate, job.device);
    return 0;
  }
  run->add_input(location.path, "");
  run->add_input(o.sft.data, "sha256:" + data.sha256);
  if (job.init_adapter) run->add_input(*job.init_adapter, "");
  run->add_fact("predicted_peak_bytes", format("{}", estimate.peak_bytes));
  run->add_fact("predicted_seconds", format("{}", estimate.seconds));
  const lp::FinetuneOutcome outcome =
      lp::run_finetune_job(job, data, tokenizer, *run, reporter, context.stop);
  run->publish();
  context.print_result(result_text(o, data, outcome),
                       result_json(o, data, outcome, job.device, watch.seconds()));
  return 0;
}

}  // namespace

Command finetune_command() {
  return make_command<FinetuneOptions>(
      "finetune", "Train", "heal or adapt a model: its head and last layers, or all of it",
      run_finetune,
      {"espalier finetune pruned --data corpus.txt --steps 100 --out healed",
       "espalier finetune pruned --mode partial --last 3 --data corpus.txt --epochs 2 --lr 1e-4 "
       "--warmup 10 --eval-text heldout.txt --out healed",
       "espalier finetune pruned --mode lora --rank 8 --data alpaca.jsonl --epochs 2 --lr 1e-4 "
       "--holdout 200 --eval-every 100 --out adapter"});
}

}  // namespace espalier::cli
