// The options of `espalier eval` and what its two halves, perplexity and tasks, share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "espalier/base/json_internal.h"
#include "espalier/models/decoder/config.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/text/tokenizer.h"

#include "apps/cli/cnn_options.h"
#include "apps/cli/command.h"
#include "apps/cli/cost_options.h"
#include "apps/cli/model_options.h"

namespace espalier::cli {

struct EvalOptions {
  ModelOptions model;
  CostOptions cost;
  ImageOptions images;
  std::vector<std::string> task{"ppl"};
  std::string add_bos = "auto";
  bool special_in_text = true;
  std::int64_t batch_tokens = 0;

  std::string text;
  std::int64_t seq_len = 0, stride = 0, max_segments = 0;

  std::string data, samples, lm_eval_json;
  std::int64_t limit = 0, num_fewshot = 0, max_length = 0;

  std::string arch;
  std::int64_t batch_size = 256;

  template <class V>
  void visit(V&& option) {
    model.visit(option);
    option.group("Task");
    option("task", task,
           "what to measure: ppl (perplexity of --text), or tasks with files in --data: piqa, "
           "hellaswag, openbookqa, arc_easy, arc_challenge, winogrande, mmlu, cmmlu, lambada, "
           "blimp, xwinograd, wikitext; or accuracy, of a CNN on the images in --data",
           placeholder("NAME,..."));
    option("add_bos", add_bos,
           "begin-of-text token in front of every segment or prompt; auto follows the tokenizer's "
           "settings",
           one_of({"auto", "on", "off"}));
    option(
        "batch_tokens", batch_tokens,
        "tokens per forward pass; on a CPU it never changes the score, on a GPU in the last bits. "
        "0 takes 1024 on a CPU, 8192 on a GPU",
        at_least(0));
    option("special_in_text", special_in_text,
           "special tokens written in the text become their ids, as in transformers; off takes "
           "them as letters");
    option.group("Perplexity");
    option("text", text, "the text, read as it stands and encoded once", placeholder("FILE"));
    option("seq_len", seq_len, "tokens per segment; 0 takes the model's context, at most 2048",
           at_least(0));
    option(
        "stride", stride,
        "windows advance by this many tokens and count only new ones; 0: segments do not overlap",
        at_least(0));
    option("max_segments", max_segments, "use only the first N segments; 0 takes all", at_least(0));
    option.group("Task data");
    option("data", data,
           "folder with the tasks' files as they are published, at its top or one folder a task; "
           "for accuracy a folder of class folders, an archive of one, or CIFAR's binary batches",
           placeholder("DIR"));
    option("limit", limit, "score only the first N documents of a task, or images; 0 takes all",
           at_least(0));
    option("num_fewshot", num_fewshot, "solved examples in front of every prompt", in_range(0, 64));
    option(
        "max_length", max_length,
        "longest prompt in tokens, longer ones lose their beginning; 0 takes the model's context",
        at_least(0));
    option("samples", samples,
           "write every document with its prompts, log-likelihoods and scores, in lm-eval's fields",
           placeholder("FILE.jsonl"));
    option("lm_eval_json", lm_eval_json, "write the results as lm-eval's results file",
           placeholder("FILE.json"));
    option.group("Task accuracy");
    option("arch", arch,
           "what a checkpoint without a config holds: resnet56, resnet50, vgg16_bn or another",
           placeholder("NAME"));
    option("batch_size", batch_size, "images per forward pass", at_least(1));
    images.visit(option);
    cost.visit(option);
  }
};

/// What is opened once for all tasks of a run.
struct EvalSession {
  const EvalOptions& options;
  Context& context;
  const DecoderConfig& config;
  const Tokenizer& tokenizer;
  at::Device device;
  std::optional<TokenId> bos;
  std::int64_t batch_tokens = 0;
};

/// One half's share of the result.
struct EvalPart {
  Json results = Json::object(), config = Json::object();
  std::string text;
  double seconds = 0;
  std::int64_t tokens = 0;  // read by the model
};

/// Seconds of a forward over `tokens` in rows of `seq_len`, and its peak memory, on this machine.
CostEstimate forward_cost(const EvalSession& session, std::int64_t tokens, std::int64_t seq_len,
                          std::int64_t batch);

/// `--task accuracy`: MODEL is a CNN, --data images. Returns the exit code.
int run_accuracy(const EvalOptions& options, Context& context);

/// Perplexity of --text: the constructor reads and checks, before the model is loaded.
class PerplexityPart {
 public:
  explicit PerplexityPart(const EvalSession& session);
  ~PerplexityPart();
  CostEstimate estimate() const;
  EvalPart run(const Decoder& model) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Tasks with files in --data, likewise.
class TasksPart {
 public:
  TasksPart(const EvalSession& session, const std::vector<std::string>& names);
  ~TasksPart();
  CostEstimate estimate() const;
  EvalPart run(const Decoder& model) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace espalier::cli
