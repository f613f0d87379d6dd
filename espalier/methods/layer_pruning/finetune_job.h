// `finetune` from a model folder to a model folder or a delta file (partial, full) or to a PEFT
// adapter folder (lora, qlora, dora): perplexity before, training, perplexity after, complete
// output, proof by reloading, model card and report. The caller opens the run folder and publishes
// it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "espalier/base/reporter.h"
#include "espalier/eval/perplexity.h"
#include "espalier/methods/layer_pruning/finetune.h"
#include "espalier/run/run_folder.h"
#include "espalier/text/tokenizer.h"

namespace espalier::layer_pruning {

struct FinetuneData {
  TrainingRows rows, held_out;
  std::filesystem::path path;
  std::string sha256;           // of the file
  std::string format = "text";  // as in --format
  std::int64_t seq_len = 0;     // tokens a row may have
};

struct FinetuneJob {
  std::filesystem::path source;                       // folder or .gguf
  std::optional<std::filesystem::path> init_adapter;  // a PEFT folder to go on from
  FinetuneOptions options;
  at::Device device = at::kCPU;
  std::optional<std::filesystem::path> eval_text;
  PerplexityOptions eval_options;  // of eval_text
  bool special_in_text = true;
  bool delta = false;        // partial, full: only what was trained, as delta.safetensors
  std::string command_line;  // for the model card
};

struct FinetuneOutcome {
  FinetuneResult training;
  std::optional<PerplexityResult> before, after;  // of eval_text
  std::string eval_sha256;
  double probe_loss = 0;  // equal in memory and after reloading
};

/// Trains on `data` and writes everything into `run`; run.publish() is the caller's. Throws what
/// finetune() throws; warns when eval_text is the training text.
FinetuneOutcome run_finetune_job(const FinetuneJob& job, const FinetuneData& data,
                                 const Tokenizer& tokenizer, RunFolder& run, Reporter& reporter,
                                 const StopToken& stop);

}  // namespace espalier::layer_pruning
