// Healing a pruned model: head + final norm + last k blocks (partial) or everything (full), on
// packed text rows, with the frozen prefix computed once and cached (spec 2.4, 4.5).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/data/token_segments.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/run/run_folder.h"
#include "espalier/train/schedule.h"

namespace espalier::layer_pruning {

enum class TuneMode : std::uint8_t { kPartial, kFull };
enum class PrefixCache : std::uint8_t { kAuto, kOff };
using LrDecay = espalier::LrDecay;

struct FinetuneOptions {
  TuneMode mode = TuneMode::kPartial;
  std::int64_t last = 3;
  std::int64_t seq_len = 128, batch_size = 8, micro_batch = 0;  // micro 0 = batch
  std::int64_t steps = 0, epochs = 0;                           // one of them
  double lr = 1e-4, weight_decay = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, clip = 1.0;
  std::int64_t warmup = 0;
  LrDecay decay = LrDecay::kLinear;
  PrefixCache prefix_cache = PrefixCache::kAuto;
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
  std::uint64_t untied_bytes =
      0;  // of the head that became a tensor of its own; 0 when it was one before
  std::map<std::string, at::Tensor> trained;  // float32 masters under their Hugging Face names
};

/// Names of the tensors that training changes, in canonical order, `lm_head.weight` among them for
/// kPartial. Error(kUsage) when `last` is out of 0..num_layers.
std::vector<std::string> trained_names(Decoder& model, TuneMode mode, std::int64_t last);

/// Steps of a run over `rows` rows; Error(kUsage) unless exactly one of steps and epochs is
/// positive.
std::int64_t planned_steps(const FinetuneOptions& options, std::int64_t rows);

/// Checks ranges and combinations; all problems in one Error(kUsage).
void check_finetune_options(const FinetuneOptions& options, const DecoderConfig& config);

/// Trains `model` in place and writes metrics and checkpoints into `run`. Resumes from run's
/// checkpoint when there is one; resumed and uninterrupted runs are bit-equal on CPU for a given
/// thread count. A NaN loss stops with Error(kInput) naming the step; the last good checkpoint
/// stays. Interrupted after a stop request, with a checkpoint saved.
///
/// Rows are the whole segments of `text` (seq_len tokens); each predicts its tokens but the first.
/// The loss of a step is the sum over all predicted tokens of the batch divided by their number,
/// whatever the micro-batch. Partial mode unties the head when it is tied (the reporter says so,
/// with the bytes added); full mode keeps a tie. `source`, when given and of the model's depth,
/// supplies float32 masters for models loaded in bfloat16.
FinetuneResult finetune(Decoder& model, const TokenText& text, const FinetuneOptions& options,
                        RunFolder& run, Reporter& reporter, const StopToken& stop,
                        const DecoderCheckpoint* source = nullptr);

}  // namespace espalier::layer_pruning
