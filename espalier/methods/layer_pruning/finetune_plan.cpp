// What a finetuning run will do, decided before it starts: which tensors train, how many steps, and
// whether the options make sense together.
#include <cstdint>
#include <string>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/data/row_order.h"
#include "espalier/methods/layer_pruning/finetune.h"

namespace espalier::layer_pruning {

namespace {

constexpr const char* kHead = "lm_head.weight";

}  // namespace

TuneMode parse_tune_mode(std::string_view name) {
  for (const TuneMode mode :
       {TuneMode::kPartial, TuneMode::kFull, TuneMode::kLora, TuneMode::kQlora, TuneMode::kDora}) {
    if (tune_mode_name(mode) == name) return mode;
  }
  throw Error(ErrorKind::kUsage, "--mode",
              format("is \"{}\", expected partial, full, lora, qlora or dora", name));
}

std::string_view tune_mode_name(TuneMode mode) {
  switch (mode) {
    case TuneMode::kPartial:
      return "partial";
    case TuneMode::kFull:
      return "full";
    case TuneMode::kLora:
      return "lora";
    case TuneMode::kQlora:
      return "qlora";
    case TuneMode::kDora:
      return "dora";
  }
  return "";
}

bool uses_adapters(TuneMode mode) {
  return mode == TuneMode::kLora || mode == TuneMode::kQlora || mode == TuneMode::kDora;
}

void check_rows(const TrainingRows& rows, const DecoderConfig& config) {
  ProblemList problems(ErrorKind::kInput, "training rows");
  if (rows.empty()) problems.add("there are none");
  if (config.context_length > 0 && rows.longest() > config.context_length) {
    problems.add(format("the longest has {} tokens, the model's context is {}", rows.longest(),
                        config.context_length));
  }
  for (std::int64_t i = 0; i < rows.size() && problems.empty(); ++i) {
    for (const TokenId id : rows.row(i).ids) {
      if (id >= 0 && id < config.vocab_size) continue;
      problems.add(format("row {} holds token id {}, the model's vocabulary has {}", i + 1, id,
                          config.vocab_size));
      break;
    }
  }
  problems.throw_if_any("lower --seq-len, and check that tokenizer and model belong together");
}

std::vector<std::string> trained_names(Decoder& model, TuneMode mode, std::int64_t last) {
  std::vector<std::string> names;
  if (mode == TuneMode::kPartial && (last < 0 || last > model.num_layers())) {
    throw Error(ErrorKind::kUsage, "--last",
                format("is {}, allowed is 0 to {} (the model's layers)", last, model.num_layers()));
  }
  bool head = false;
  model.for_each_parameter([&](const std::string& name, at::Tensor&) {
    head = head || name == kHead;
    bool trains = mode == TuneMode::kFull || name == kHead || name == "model.norm.weight";
    for (std::int64_t i = model.num_layers() - last; !trains && i < model.num_layers(); ++i) {
      trains = name.starts_with(format("model.layers.{}.", i));
    }
    if (trains) names.push_back(name);
  });
  if (mode == TuneMode::kPartial && !head) names.push_back(kHead);
  return names;
}

std::int64_t planned_steps(const FinetuneOptions& options, std::int64_t rows) {
  if ((options.steps > 0) == (options.epochs > 0)) {
    throw Error(ErrorKind::kUsage, "--steps",
                "give exactly one of --steps and --epochs, as a positive number")
        .hint("--epochs 1");
  }
  if (options.steps > 0) return options.steps;
  return options.epochs * RowOrder(rows, options.batch_size, options.seed).steps_per_epoch();
}

void check_finetune_options(const FinetuneOptions& o, const DecoderConfig& config) {
  ProblemList problems(ErrorKind::kUsage, "finetune");
  if (o.mode == TuneMode::kPartial && (o.last < 0 || o.last > config.num_layers)) {
    problems.add(
        format("--last is {}, allowed is 0 to {} (the model's layers)", o.last, config.num_layers));
  }
  if (o.batch_size < 1)
    problems.add(format("--batch-size is {}, it must be at least 1", o.batch_size));
  if (o.micro_batch < 0 || o.micro_batch > o.batch_size) {
    problems.add(format("--micro-batch is {}, allowed is 0 (the whole batch) to --batch-size {}",
                        o.micro_batch, o.batch_size));
  }
  if ((o.steps > 0) == (o.epochs > 0))
    problems.add(format("give exactly one of --steps and --epochs, as a positive number"));
  if (!(o.lr > 0)) problems.add(format("--lr is {}, it must be positive", o.lr));
  if (o.warmup < 0 || (o.steps > 0 && o.warmup >= o.steps)) {
    problems.add(format("--warmup is {}, it must be smaller than --steps {}", o.warmup, o.steps));
  }
  if (!(o.clip >= 0)) problems.add(format("--clip is {}, it must not be negative", o.clip));
  if (!(o.weight_decay >= 0))
    problems.add(format("--weight-decay is {}, it must not be negative", o.weight_decay));
  if (!(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1))
    problems.add(format("--beta1 and --beta2 must lie in [0, 1)"));
  if (uses_adapters(o.mode)) {
    if (o.adapter.rank < 1)
      problems.add(format("--rank is {}, it must be at least 1", o.adapter.rank));
    if (!(o.adapter.dropout >= 0 && o.adapter.dropout < 1))
      problems.add(format("--dropout is {}, it must lie in [0, 1)", o.adapter.dropout));
  }
  if (o.eval_every < 0)
    problems.add(format("--eval-every is {}, it must not be negative", o.eval_every));
  if (o.checkpoint_every < 0)
    problems.add(format("--checkpoint-every is {}, it must not be negative", o.checkpoint_every));
  problems.throw_if_any();
}

}  // namespace espalier::layer_pruning
