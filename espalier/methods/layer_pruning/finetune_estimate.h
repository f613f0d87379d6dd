// What a finetuning run will cost, before it starts.
#pragma once

#include <cstdint>

#include "espalier/methods/layer_pruning/finetune.h"

namespace espalier::layer_pruning {

struct FinetuneEstimate {
  std::int64_t steps = 0, trainable_parameters = 0;
  std::int64_t weights_bytes = 0;     // of the model in the compute dtype, an untied head included
  std::int64_t training_bytes = 0;    // masters, moments and gradients
  std::int64_t activation_bytes = 0;  // of one micro-batch, or of the prefix pass
  std::int64_t peak_bytes = 0;        // of the process (CPU) or the device
  std::int64_t cache_bytes = 0;       // prefix cache on disk; 0 when it would not be used
  std::int64_t disk_bytes = 0;        // checkpoint, cache and output together
  double seconds = 0;
};

/// Prediction for training on `data`; `stored_bytes`: of the model's files, which the output
/// repeats (0 when only a delta is written). Measures the device for about 0.2 s. The rates behind
/// it are derived in the .cpp.
FinetuneEstimate estimate_finetune(const DecoderConfig& config, const FinetuneOptions& options,
                                   const TrainingRows& data, std::int64_t stored_bytes,
                                   at::Device device);

}  // namespace espalier::layer_pruning
