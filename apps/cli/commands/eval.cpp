// `espalier eval`: scores of a model on local data. This release has perplexity.
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/data/token_segments.h"
#include "espalier/eval/forward_cost.h"
#include "espalier/eval/perplexity.h"
#include "espalier/kernels/matmul/matmul.h"
#include "espalier/run/build_info.h"

#include "apps/cli/commands.h"
#include "apps/cli/cost_options.h"
#include "apps/cli/machine.h"
#include "apps/cli/model_options.h"
#include "apps/cli/residency.h"

namespace espalier::cli {
namespace {

struct EvalOptions {
  ModelOptions model;
  CostOptions cost;
  std::vector<std::string> task{"ppl"};
  std::string text;
  std::int64_t seq_len = 0, stride = 0, max_segments = 0, batch_tokens = 1024;
  std::string add_bos = "auto";
  bool special_in_text = true;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    option.group("Task");
    option("task", task, "what to measure: ppl (perplexity of a text)", placeholder("NAME,..."));
    option.group("Perplexity");
    option("text", text, "the text, read as it stands and encoded once", placeholder("FILE"));
    option("seq_len", seq_len, "tokens per segment; 0 takes the model's context, at most 2048",
           at_least(0));
    option(
        "stride", stride,
        "windows advance by this many tokens and count only new ones; 0: segments do not overlap",
        at_least(0));
    option("max_segments", max_segments, "use only the first N segments; 0 takes all", at_least(0));
    option("add_bos", add_bos,
           "begin-of-text token in front of every segment; auto follows the tokenizer's settings",
           one_of({"auto", "on", "off"}));
    option("batch_tokens", batch_tokens, "tokens per forward pass; never changes the score",
           at_least(1));
    option("special_in_text", special_in_text,
           "special tokens written in the text become their ids, as in transformers; off takes "
           "them as letters");
    cost.visit(option);
  }
};

void check_tasks(const EvalOptions& o) {
  for (const std::string& task : o.task) {
    if (task != "ppl") {
      throw Error(ErrorKind::kUnsupported, "--task",
                  format("'{}' is not a task of this release, there is: ppl", task))
          .hint("--task ppl --text FILE");
    }
  }
  if (o.task.empty())
    throw Error(ErrorKind::kUsage, "--task", "names no task").hint("--task ppl --text FILE");
  if (o.text.empty())
    throw Error(ErrorKind::kUsage, "--text", "is needed by task ppl").hint("--text FILE");
}

/// The token that --add-bos puts in front; nullopt for none.
std::optional<TokenId> choose_bos(const EvalOptions& o, const Tokenizer& tokenizer) {
  if (o.add_bos == "off" || (o.add_bos == "auto" && !tokenizer.adds_bos())) return std::nullopt;
  if (!tokenizer.bos()) {
    throw Error(ErrorKind::kUsage, "--add-bos",
                "is on, but the tokenizer names no begin-of-text token")
        .hint("--add-bos off");
  }
  return tokenizer.bos();
}

PerplexityOptions perplexity_options(const EvalOptions& o, const DecoderConfig& config, bool bos,
                                     Reporter& reporter) {
  PerplexityOptions options;
  options.seq_len =
      o.seq_len > 0
          ? o.seq_len
          : std::min<std::int64_t>(2048, config.context_length > 0 ? config.context_length : 2048);
  options.stride = o.stride;
  options.max_segments = o.max_segments;
  options.add_bos = bos;
  options.batch_tokens = o.batch_tokens;
  if (config.context_length > 0 && options.seq_len + (bos ? 1 : 0) > config.context_length) {
    reporter.warn(format(
        "segments of {} tokens are longer than the model's context of {}: expect a worse score",
        options.seq_len, config.context_length));
  }
  return options;
}

CostEstimate estimate(const EvalOptions& o, const PerplexityOptions& p, const DecoderConfig& config,
                      const TokenText& text, at::Device device) {
  const auto tokens = static_cast<std::int64_t>(text.ids.size());
  const std::int64_t segments =
      p.stride > 0 ? (tokens + p.stride - 1) / p.stride : tokens / p.seq_len;
  const std::int64_t read =
      (p.max_segments > 0 ? std::min(segments, p.max_segments) : segments) * p.seq_len;
  const std::int64_t batch = std::max(p.seq_len, p.batch_tokens);
  const at::ScalarType type = o.model.scalar_type();
  const std::int64_t bytes =
      weight_bytes(config, type) + forward_bytes(config, batch, type) + head_bytes(config, batch);
  CostEstimate cost;
  cost.peak_memory = {process_bytes() + (device.is_cpu() ? bytes : 0)};
  cost.peak_device_memory = {device.is_cpu() ? 0 : bytes};
  cost.seconds =
      (layer_flops(config, config.num_layers, read, p.seq_len) + head_flops(config, read)) /
      measure_flops_per_second(config, type, device);
  cost.note = format("perplexity of {} tokens in segments of {}", format_count(read), p.seq_len);
  return cost;
}

std::string protocol_text(const EvalOptions& o, const PerplexityOptions& p, std::int64_t segments) {
  return format("{} x {} tokens, {}, {}, {}", format_count(segments), p.seq_len,
                p.stride > 0 ? format("stride {}", p.stride) : std::string("no overlap"),
                p.add_bos ? "BOS in front of each" : "no BOS", o.model.dtype);
}

int run_eval(const EvalOptions& o, Context& context) {
  check_tasks(o);
  const ModelLocation location = o.model.locate();
  const at::Device device = ModelOptions::device(context);
  const std::shared_ptr<const DecoderCheckpoint> checkpoint =
      DecoderCheckpoint::open(location.path);
  const Tokenizer tokenizer = Tokenizer::load(location.path);
  const std::optional<TokenId> bos = choose_bos(o, tokenizer);
  const PerplexityOptions options =
      perplexity_options(o, checkpoint->config(), bos.has_value(), context.reporter);
  const TokenText text = load_token_text(o.text, tokenizer, context.reporter, o.special_in_text,
                                         perplexity_text_tokens(options));
  if (o.cost.dry_run) {
    print_cost(context, "eval", estimate(o, options, checkpoint->config(), text, device), "");
    return 0;
  }
  const Decoder model = Decoder::load(
      checkpoint, o.model.scalar_type(), device,
      choose_residency(checkpoint->config(), o.model.scalar_type(), device, context.reporter));
  const PerplexityResult r =
      perplexity(model, text, options, bos.value_or(0), context.reporter, context.stop);

  const std::int64_t read = r.segments * options.seq_len;
  Json json;
  json["schema"] = "espalier.eval/1";
  json["model"] = o.model.model;
  json["results"]["ppl"] = {{"perplexity", r.perplexity},
                            {"perplexity_stderr", r.perplexity_stderr},
                            {"nll", r.nll},
                            {"nll_stderr", r.nll_stderr},
                            {"tokens", r.tokens},
                            {"n", r.segments}};
  json["config"] = {
      {"dtype", o.model.dtype},
      {"device", device.str()},
      {"batch_size", std::max<std::int64_t>(1, options.batch_tokens / options.seq_len)},
      {"seq_len", options.seq_len},
      {"stride", options.stride},
      {"add_bos", options.add_bos},
      {"add_bos_mode", o.add_bos},
      {"special_in_text", o.special_in_text},
      {"max_segments", options.max_segments},
      {"text", o.text},
      {"text_sha256", text.sha256},
      {"matmul", matmul_backend_name()},
      {"version", build_info().version}};
  json["seconds"] = r.seconds;
  json["tokens_per_second"] = static_cast<double>(read) / r.seconds;
  json["peak_rss_bytes"] = peak_rss().count;
  json["peak_device_bytes"] = peak_device_bytes(device);
  const std::string table = format(
      "perplexity {:.4f} ± {:.4f}   nll {:.5f} nats/token, n = {} segments, {} predicted "
      "tokens\n{}\n{:.0f} tokens/s in {}\n",
      r.perplexity, r.perplexity_stderr, r.nll, format_count(r.segments), format_count(r.tokens),
      protocol_text(o, options, r.segments), static_cast<double>(read) / r.seconds,
      format_seconds(r.seconds));
  context.print_result(table, dump_json(json));
  return 0;
}

}  // namespace

Command eval_command() {
  return make_command<EvalOptions>(
      "eval", "Measure", "perplexity of a model on a text", run_eval,
      {"espalier eval MODEL --task ppl --text wiki.test.txt --seq-len 128",
       "espalier eval model.gguf --text wiki.test.txt --seq-len 2048 --stride 512 --json"});
}

}  // namespace espalier::cli
