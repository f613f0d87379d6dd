// Healing a pruned model: head + final norm + last k blocks (partial) or everything (full), on packed text rows, with
// the frozen prefix computed once and cached (spec 2.4, 4.5).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/data/token_segments.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/run/run_folder.h"

namespace espalier::layer_pruning {

enum class TuneMode : std::uint8_t { kPartial, kFull };
enum class PrefixCache : std::uint8_t { kAuto, kOff };
enum class LrDecay : std::uint8_t { kLinear, kCosine, kConstant };

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
  at::ScalarType compute = at::kFloat;  // bf16: float32 masters, bf16 compute
};

struct FinetuneResult {
  std::int64_t steps = 0, tokens = 0, trainable_parameters = 0;
  double loss_first = 0, loss_last = 0, seconds = 0, prefix_seconds = 0, tokens_per_second = 0;
  std::vector<double> losses;
  std::uint64_t prefix_cache_bytes = 0;
};

/// Trains `model` in place and writes metrics and checkpoints into `run`. Resumes from run's checkpoint when there is one;
/// resumed and uninterrupted runs are bit-equal on CPU for a given thread count. A NaN loss stops with Error(kInput)
/// naming the step; the last good checkpoint stays. Interrupted after a stop request, with a checkpoint saved.
FinetuneResult finetune(Decoder& model, const TokenText& text, const FinetuneOptions& options, RunFolder& run,
                        Reporter& reporter, const StopToken& stop);

}  // namespace espalier::layer_pruning
