// `espalier eval`: scores of a model on local data. Perplexity and tasks are two parts over one
// model; this file joins them. A CNN's accuracy is eval_accuracy.cpp's.
#include <algorithm>

#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/eval/forward_cost.h"
#include "espalier/eval/tasks/task_table.h"
#include "espalier/kernels/matmul/matmul.h"
#include "espalier/run/build_info.h"

#include "apps/cli/commands.h"
#include "apps/cli/commands/eval_options.h"
#include "apps/cli/machine.h"
#include "apps/cli/residency.h"

namespace espalier::cli {
namespace {

[[noreturn]] void throw_unknown_task(const std::string& name) {
  std::vector<std::string> known = eval_task_names();
  known.push_back("ppl");
  known.push_back("accuracy");
  std::string listed = "ppl, accuracy";
  for (const std::string& one : eval_task_headlines()) listed += ", " + one;
  const std::string near = nearest(name, known);
  throw Error(ErrorKind::kUnsupported, "--task",
              format("'{}' is not a task; there are: {}", name, listed))
      .hint(near.empty() ? "parts of a group are named as in lm-eval: mmlu_anatomy, "
                           "blimp_adjunct_island, xwinograd_en"
                         : format("did you mean --task {}?", near));
}

void check_tasks(const EvalOptions& o) {
  if (o.task.empty())
    throw Error(ErrorKind::kUsage, "--task", "names no task").hint("--task ppl --text FILE");
  for (const std::string& name : o.task) {
    if (name == "ppl") {
      if (o.text.empty())
        throw Error(ErrorKind::kUsage, "--text", "is needed by task ppl").hint("--text FILE");
      continue;
    }
    if (find_eval_task(name) == nullptr && find_eval_group(name) == nullptr)
      throw_unknown_task(name);
    if (o.data.empty())
      throw Error(ErrorKind::kUsage, "--data", format("is needed by task {}", name))
          .hint("--data DIR, a folder with the task's files");
  }
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

std::int64_t batch_tokens(const EvalOptions& o, at::Device device) {
  if (o.batch_tokens > 0) return o.batch_tokens;
  return device.is_cpu() ? 1024 : 8192;  // a GPU waits for its launches at less
}

void print_estimates(Context& context, const std::vector<CostEstimate>& parts) {
  CostEstimate all;
  for (const CostEstimate& part : parts) {
    all.peak_memory.count = std::max(all.peak_memory.count, part.peak_memory.count);
    all.peak_device_memory.count =
        std::max(all.peak_device_memory.count, part.peak_device_memory.count);
    all.seconds += part.seconds;
    all.note += (all.note.empty() ? "" : "; ") + part.note;
  }
  print_cost(context, "eval", all, "");
}

void print_parts(const EvalSession& session, const std::vector<EvalPart>& parts) {
  const EvalOptions& o = session.options;
  Json json;
  json["schema"] = "espalier.eval/1";
  json["model"] = o.model.model;
  json["results"] = Json::object();
  json["config"] = {{"dtype", o.model.dtype},
                    {"device", session.device.str()},
                    {"batch_size", 1},
                    {"seq_len", 0},
                    {"add_bos", session.bos.has_value()},
                    {"add_bos_mode", o.add_bos},
                    {"special_in_text", o.special_in_text}};
  std::string text;
  double seconds = 0;
  std::int64_t tokens = 0;
  for (const EvalPart& part : parts) {
    json["results"].update(part.results);
    json["config"].update(part.config);
    text += (text.empty() ? "" : "\n") + part.text;
    seconds += part.seconds;
    tokens += part.tokens;
  }
  json["config"]["matmul"] = matmul_backend_name();
  json["config"]["version"] = build_info().version;
  json["seconds"] = seconds;
  json["tokens_per_second"] = static_cast<double>(tokens) / seconds;
  json["peak_rss_bytes"] = peak_rss().count;
  json["peak_device_bytes"] = peak_device_bytes(session.device);
  session.context.print_result(text, dump_json(json));
}

int run_eval(const EvalOptions& o, Context& context) {
  if (o.task == std::vector<std::string>{"accuracy"}) return run_accuracy(o, context);
  if (std::ranges::find(o.task, "accuracy") != o.task.end()) {
    throw Error(ErrorKind::kUsage, "--task", "accuracy goes alone: it is measured on a CNN")
        .hint("--task accuracy");
  }
  check_tasks(o);
  const ModelLocation location = o.model.locate();
  const at::Device device = ModelOptions::device(context);
  const std::shared_ptr<const DecoderCheckpoint> checkpoint =
      DecoderCheckpoint::open(location.path);
  const Tokenizer tokenizer = Tokenizer::load(location.path);
  const EvalSession session{o,
                            context,
                            checkpoint->config(),
                            tokenizer,
                            device,
                            choose_bos(o, tokenizer),
                            batch_tokens(o, device)};
  std::vector<std::string> names = o.task;
  const bool wants_perplexity = std::erase(names, "ppl") > 0;
  std::unique_ptr<TasksPart> tasks;
  std::unique_ptr<PerplexityPart> perplexity;
  if (!names.empty()) tasks = std::make_unique<TasksPart>(session, names);
  if (wants_perplexity) perplexity = std::make_unique<PerplexityPart>(session);
  if (o.cost.dry_run) {
    std::vector<CostEstimate> parts;
    if (tasks) parts.push_back(tasks->estimate());
    if (perplexity) parts.push_back(perplexity->estimate());
    print_estimates(context, parts);
    return 0;
  }
  const Decoder model = Decoder::load(
      checkpoint, o.model.scalar_type(), device,
      choose_residency(checkpoint->config(), o.model.scalar_type(), device, context.reporter));
  std::vector<EvalPart> parts;
  if (tasks) parts.push_back(tasks->run(model));
  if (perplexity) parts.push_back(perplexity->run(model));
  print_parts(session, parts);
  return 0;
}

}  // namespace

CostEstimate forward_cost(const EvalSession& session, std::int64_t tokens, std::int64_t seq_len,
                          std::int64_t batch) {
  const DecoderConfig& config = session.config;
  const at::ScalarType type = session.options.model.scalar_type();
  const bool on_cpu = session.device.is_cpu();
  const std::int64_t bytes =
      weight_bytes(config, type) + forward_bytes(config, batch, type) + head_bytes(config, batch);
  CostEstimate cost;
  cost.peak_memory = {process_bytes() + (on_cpu ? bytes : 0)};
  cost.peak_device_memory = {on_cpu ? 0 : bytes};
  cost.seconds =
      (layer_flops(config, config.num_layers, tokens, seq_len) + head_flops(config, tokens)) /
      measure_flops_per_second(config, type, session.device);
  return cost;
}

Command eval_command() {
  return make_command<EvalOptions>(
      "eval", "Measure", "perplexity of a model on a text, accuracy on tasks or images", run_eval,
      {"espalier eval MODEL --task ppl --text wiki.test.txt --seq-len 128",
       "espalier eval model.gguf --text wiki.test.txt --seq-len 2048 --stride 512 --json",
       "espalier eval MODEL --task piqa,arc_easy,mmlu --data DIR --samples samples.jsonl",
       "espalier eval CNN --task accuracy --data cifar10.tar.xz --batch-size 500"});
}

}  // namespace espalier::cli
