// Costs by counting: parameters, rows, operations.
#include "espalier/methods/layer_pruning/finetune_estimate.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "espalier/eval/forward_cost.h"
#include "espalier/methods/layer_pruning/prefix_cache.h"
#include "espalier/models/decoder/tensor_names.h"

namespace espalier::layer_pruning {
namespace {

/// Bytes a trained layer keeps for its backward pass, per token: inputs of each product and
/// non-linearity.
std::int64_t saved_bytes_per_token(const DecoderConfig& c, at::ScalarType type) {
  const std::int64_t heads = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  const std::int64_t elements = 4 * c.hidden_size + 3 * heads + 2 * kv + 4 * c.intermediate_size;
  return elements * static_cast<std::int64_t>(c10::elementSize(type));
}

/// Parameters of the adapters on the matrices of every layer that are targeted.
std::int64_t adapter_parameters(const DecoderConfig& c, const PeftConfig& adapter) {
  constexpr std::string_view kEnding = ".weight";
  std::int64_t total = 0;
  for (std::int64_t layer = 0; layer < c.num_layers; ++layer) {
    for (const TensorSpec& spec : layer_tensor_specs(c)) {
      const std::string name = layer_prefix(layer) + spec.name.substr(0, spec.name.rfind(kEnding));
      if (spec.shape.size() != 2 || !adapter.targets_module(name)) continue;
      const std::int64_t out = spec.shape[0], in = spec.shape[1];
      total += adapter.rank_of(name) * (in + out) + (adapter.dora ? out : 0);
    }
  }
  const bool head = std::find(adapter.modules_to_save.begin(), adapter.modules_to_save.end(),
                              "lm_head") != adapter.modules_to_save.end();
  return total + (head ? c.vocab_size * c.hidden_size : 0);
}

}  // namespace

FinetuneEstimate estimate_finetune(const DecoderConfig& config, const FinetuneOptions& o,
                                   const TrainingRows& data, std::int64_t stored_bytes,
                                   at::Device device) {
  FinetuneEstimate e;
  const bool full = o.mode == TuneMode::kFull, adapters = uses_adapters(o.mode);
  const std::int64_t rows = data.size(), seq_len = data.longest();
  const double mean_length =
      static_cast<double>(data.tokens()) / static_cast<double>(std::max<std::int64_t>(1, rows));
  const std::int64_t first = full || adapters ? 0 : config.num_layers - o.last,
                     trained_layers = config.num_layers - first;
  const std::int64_t head = config.vocab_size * config.hidden_size;
  const bool unties = !full && !adapters && config.tied_embeddings;
  const auto size = static_cast<std::int64_t>(c10::elementSize(o.compute));
  e.steps = planned_steps(o, rows);
  e.trainable_parameters =
      full       ? config.parameters()
      : adapters ? adapter_parameters(config, o.adapter)
                 : head + config.hidden_size + trained_layers * config.parameters_per_layer();
  e.weights_bytes = weight_bytes(config, o.compute) + (unties ? head * size : 0);
  // 4 bits and a scale per 64 weights, the scales in 8 bits.
  if (o.mode == TuneMode::kQlora)
    e.weights_bytes -= config.num_layers * config.parameters_per_layer() * (8 * size - 4) / 8;
  // A leaf of its own for each trained tensor (the original stays mapped), two float32 moments, one
  // gradient; below float32 also the master. The head's gradient exists twice while it is handed
  // through autograd.
  const std::int64_t masters = o.compute == at::kFloat ? 0 : 4;
  e.training_bytes = e.trainable_parameters * (size + masters + 8 + 4) + (adapters ? 0 : head * 4);
  const std::int64_t micro =
      (o.micro_batch > 0 ? o.micro_batch : std::min(o.batch_size, rows)) * seq_len;
  const std::int64_t per_layer = micro * saved_bytes_per_token(config, o.compute);
  const std::int64_t training_pass =
      (o.gradient_checkpointing ? per_layer + trained_layers * micro * config.hidden_size * size
                                : trained_layers * per_layer) +
      head_bytes(config, micro) + 2 * micro * config.hidden_size * 4;
  e.activation_bytes = std::max(
      training_pass, forward_bytes(config, std::max<std::int64_t>(micro, 4096), o.compute));
  e.peak_bytes = (device.is_cpu() ? process_bytes() : 0) + e.weights_bytes + e.training_bytes +
                 e.activation_bytes;

  const std::int64_t per_epoch =
      (rows + std::min(rows, o.batch_size) - 1) / std::min(rows, o.batch_size);
  const bool cached = o.prefix_cache == PrefixCache::kAuto && first > 0 && e.steps > per_epoch;
  if (cached)
    e.cache_bytes =
        static_cast<std::int64_t>(prefix_cache_bytes(data.tokens(), config.hidden_size, o.compute));
  e.disk_bytes = e.cache_bytes + e.trainable_parameters * 12 +
                 (adapters ? e.trainable_parameters * 4 : stored_bytes + (unties ? head * 4 : 0));

  const auto tokens = static_cast<std::int64_t>(
      static_cast<double>(e.steps * std::min(rows, o.batch_size)) * mean_length);
  const std::int64_t prefix_tokens = cached ? data.tokens() : tokens;
  // Backward costs twice the forward, one product for the input's gradient and one for the
  // weight's; once where the weights are frozen; and a forward more where layers run again.
  const double passes = (adapters ? 2 : 3) + (o.gradient_checkpointing ? 1 : 0);
  const double predicted = static_cast<double>(data.predicted()) /
                           static_cast<double>(std::max<std::int64_t>(1, data.tokens()));
  const double flops = layer_flops(config, first, prefix_tokens, seq_len) +
                       passes * layer_flops(config, trained_layers, tokens, seq_len) +
                       (adapters ? 2 : 3) * predicted * head_flops(config, tokens);
  // AdamW reads four and writes three float32 values an element; a core streams some 10 GB/s, an
  // accelerator 1 TB/s.
  const double streamed =
      static_cast<double>(e.steps) * static_cast<double>(e.trainable_parameters) * 28;
  e.seconds = flops / measure_flops_per_second(config, o.compute, device) +
              streamed / (device.is_cpu() ? 1e10 : 1e12);
  return e;
}

}  // namespace espalier::layer_pruning
