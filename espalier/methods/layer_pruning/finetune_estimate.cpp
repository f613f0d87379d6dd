// Costs by counting: parameters, rows, operations.
#include "espalier/methods/layer_pruning/finetune_estimate.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "espalier/eval/forward_cost.h"
#include "espalier/methods/layer_pruning/prefix_cache.h"

namespace espalier::layer_pruning {
namespace {

/// Bytes a trained layer keeps for its backward pass, per token: inputs of each product and
/// non-linearity.
std::int64_t saved_bytes_per_token(const DecoderConfig& c, at::ScalarType type) {
  const std::int64_t heads = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  const std::int64_t elements = 4 * c.hidden_size + 3 * heads + 2 * kv + 4 * c.intermediate_size;
  return elements * static_cast<std::int64_t>(c10::elementSize(type));
}

}  // namespace

FinetuneEstimate estimate_finetune(const DecoderConfig& config, const FinetuneOptions& o,
                                   std::int64_t rows, std::int64_t stored_bytes,
                                   at::Device device) {
  FinetuneEstimate e;
  const bool full = o.mode == TuneMode::kFull;
  const std::int64_t first = full ? 0 : config.num_layers - o.last,
                     trained_layers = config.num_layers - first;
  const std::int64_t head = config.vocab_size * config.hidden_size;
  const bool unties = !full && config.tied_embeddings;
  const auto size = static_cast<std::int64_t>(c10::elementSize(o.compute));
  e.steps = planned_steps(o, rows);
  e.trainable_parameters =
      full ? config.parameters()
           : head + config.hidden_size + trained_layers * config.parameters_per_layer();
  e.weights_bytes = weight_bytes(config, o.compute) + (unties ? head * size : 0);
  // A leaf of its own for each trained tensor (the original stays mapped), two float32 moments, one
  // gradient; below float32 also the master. The head's gradient exists twice while it is handed
  // through autograd.
  const std::int64_t masters = o.compute == at::kFloat ? 0 : 4;
  e.training_bytes = e.trainable_parameters * (size + masters + 8 + 4) + head * 4;
  const std::int64_t micro =
      (o.micro_batch > 0 ? o.micro_batch : std::min(o.batch_size, rows)) * o.seq_len;
  const std::int64_t training_pass =
      trained_layers * micro * saved_bytes_per_token(config, o.compute) +
      head_bytes(config, micro) + 2 * micro * config.hidden_size * 4;
  e.activation_bytes = std::max(
      training_pass, forward_bytes(config, std::max<std::int64_t>(micro, 4096), o.compute));
  e.peak_bytes = (device.is_cpu() ? process_bytes() : 0) + e.weights_bytes + e.training_bytes +
                 e.activation_bytes;

  const std::int64_t per_epoch =
      (rows + std::min(rows, o.batch_size) - 1) / std::min(rows, o.batch_size);
  const bool cached = o.prefix_cache == PrefixCache::kAuto && first > 0 && e.steps > per_epoch;
  if (cached)
    e.cache_bytes = static_cast<std::int64_t>(
        prefix_cache_bytes(rows, o.seq_len, config.hidden_size, o.compute));
  e.disk_bytes =
      e.cache_bytes + e.trainable_parameters * 12 + stored_bytes + (unties ? head * 4 : 0);

  const std::int64_t tokens = e.steps * std::min(rows, o.batch_size) * o.seq_len;
  const std::int64_t prefix_tokens = cached ? rows * o.seq_len : tokens;
  // Backward costs twice the forward: one product for the input's gradient, one for the weight's.
  const double flops = layer_flops(config, first, prefix_tokens, o.seq_len) +
                       3 * layer_flops(config, trained_layers, tokens, o.seq_len) +
                       3 * head_flops(config, tokens);
  // AdamW reads four and writes three float32 values an element; a core streams some 10 GB/s, an
  // accelerator 1 TB/s.
  const double streamed =
      static_cast<double>(e.steps) * static_cast<double>(e.trainable_parameters) * 28;
  e.seconds = flops / measure_flops_per_second(config, o.compute, device) +
              streamed / (device.is_cpu() ? 1e10 : 1e12);
  return e;
}

}  // namespace espalier::layer_pruning
