// Healing a pruned model: head + final norm + last k blocks (partial), low-rank adapters (lora,
// qlora, dora) or everything (full), on rows of any lengths, with the frozen prefix computed once
// and cached (spec 2.4, 4.5).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/data/training_rows.h"
#include "espalier/io/peft_folder.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/run/run_folder.h"
#include "espalier/train/schedule.h"

namespace espalier::layer_pruning {

enum class TuneMode : std::uint8_t { kPartial, kFull, kLora, kQlora, kDora };
/// "partial", "full", "lora", "qlora", "dora"; Error(kUsage) otherwise.
TuneMode parse_tune_mode(std::string_view name);
std::string_view tune_mode_name(TuneMode mode);
/// lora, qlora, dora.
bool uses_adapters(TuneMode mode);

enum class PrefixCache : std::uint8_t { kAuto, kOff };
using LrDecay = espalier::LrDecay;

struct FinetuneOptions {
  TuneMode mode = TuneMode::kPartial;
  std::int64_t last = 3;
  PeftConfig adapter;                            // of the adapter modes; dora decides use_dora
  std::int64_t batch_size = 8, micro_batch = 0;  // rows; micro 0 = batch
  std::int64_t steps = 0, epochs = 0;            // one of them
  double lr = 1e-4, weight_decay = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, clip = 1.0;
  std::int64_t warmup = 0;
  LrDecay decay = LrDecay::kLinear;
  PrefixCache prefix_cache = PrefixCache::kAuto;
  bool gradient_checkpointing = false;  // layers run again in the backward pass
  bool capture = true;                  // record steps as CUDA graphs where that is possible
  std::int64_t eval_every = 0;          // steps between losses of the held-out rows; 0: never
  std::int64_t checkpoint_every = 100;
  std::uint64_t seed = 0;
  at::ScalarType compute =
      at::kFloat;  // bf16: float32 masters, bf16 compute; must be the model's type
};

struct FinetuneResult {
  std::int64_t steps = 0, tokens = 0, trainable_parameters = 0;
  double loss_first = 0, loss_last = 0, seconds = 0, prefix_seconds = 0, tokens_per_second = 0;
  std::vector<double> losses, rates;
  std::uint64_t prefix_cache_bytes = 0;  // 0: the cache was not used
  std::int64_t rows = 0, resumed_from = 0;
  std::vector<std::pair<std::int64_t, double>> held_out;  // (steps done, loss of the held-out rows)
  std::int64_t best_step = 0;  // whose tensors were kept; 0 without held-out rows
  std::uint64_t untied_bytes =
      0;  // of the head that became a tensor of its own; 0 when it was one before
  std::map<std::string, at::Tensor> trained;  // float32 masters under their Hugging Face names
};

/// Names of the model's own tensors that training changes, in canonical order, `lm_head.weight`
/// among them for kPartial; for kPartial and kFull. Error(kUsage) when `last` is out of
/// 0..num_layers.
std::vector<std::string> trained_names(Decoder& model, TuneMode mode, std::int64_t last);

/// Steps of a run over `rows` rows; Error(kUsage) unless exactly one of steps and epochs is
/// positive.
std::int64_t planned_steps(const FinetuneOptions& options, std::int64_t rows);

/// Checks ranges and combinations; all problems in one Error(kUsage).
void check_finetune_options(const FinetuneOptions& options, const DecoderConfig& config);
/// Error(kInput) when a row is longer than the model's context or holds an id outside its
/// vocabulary.
void check_rows(const TrainingRows& rows, const DecoderConfig& config);

/// Trains `model` in place and writes metrics and checkpoints into `run`. Resumes from run's
/// checkpoint when there is one; resumed and uninterrupted runs are bit-equal on CPU for a given
/// thread count. A NaN loss stops with Error(kInput) naming the step; the last good checkpoint
/// stays. Interrupted after a stop request, with a checkpoint saved.
///
/// The loss of a step is the sum over all predicted tokens of the batch divided by their number,
/// whatever the micro-batch. Partial mode unties the head when it is tied (the reporter says so,
/// with the bytes added); full mode keeps a tie. Adapter modes attach fresh adapters unless `model`
/// carries some. `source`, when given and of the model's depth, supplies float32 masters for models
/// loaded in bfloat16. With `held_out` rows and eval_every their loss is measured at these steps
/// and at the end, and the tensors of the best one are what stays.
FinetuneResult finetune(Decoder& model, const TrainingRows& rows, const FinetuneOptions& options,
                        RunFolder& run, Reporter& reporter, const StopToken& stop,
                        const DecoderCheckpoint* source = nullptr,
                        const TrainingRows* held_out = nullptr);

/// Mean NLL of the predicted tokens of `rows` (nats), rows in batches of up to `batch_tokens`.
double rows_loss(const Decoder& model, const TrainingRows& rows, std::int64_t batch_tokens = 4096,
                 const StopToken& stop = never_stop());

}  // namespace espalier::layer_pruning
