// See scoring_cost.h. The counts are those of
// methods/layer_pruning/{scores,gradient_scores,sleb}.cpp.
#include "apps/cli/scoring_cost.h"

#include <algorithm>
#include <initializer_list>

#include <c10/core/ScalarType.h>

#include "espalier/eval/forward_cost.h"

namespace espalier::cli {

ScoringCost scoring_cost(const DecoderConfig& config, const std::vector<std::string>& metrics,
                         std::int64_t samples, std::int64_t seq_len, std::int64_t evaluations,
                         at::ScalarType type, Residency residency, std::int64_t remove) {
  const auto has = [&](std::initializer_list<const char*> any) {
    return std::any_of(any.begin(), any.end(), [&](const char* metric) {
      return std::find(metrics.begin(), metrics.end(), metric) != metrics.end();
    });
  };
  const std::int64_t layers = config.num_layers, tokens = samples * seq_len;
  const bool all_streams = has({"ppl", "ppl+"}),
             gradients = has({"taylor", "taylor+", "gradnorm", "sglp"}), greedy = has({"sleb"}),
             sweeps = all_streams || has({"bi", "angular", "cos_block", "cka_adj", "sglp"});
  ScoringCost cost;
  cost.bytes = residency == Residency::kResident
                   ? weight_bytes(config, type)
                   : weight_bytes(config, type) / std::max<std::int64_t>(1, layers);
  if (!sweeps && !gradients && !greedy && evaluations == 0) return cost;
  if (remove < 1) remove = std::max<std::int64_t>(1, layers / 4);
  std::int64_t block_runs = evaluations * layers, heads = evaluations;
  if (sweeps) block_runs += all_streams ? layers * (layers + 1) / 2 : layers;
  if (all_streams) heads += layers + 1;
  if (gradients) block_runs += 4 * layers, heads += 3;  // two forwards, a backward of twice that
  for (std::int64_t left = layers; greedy && left > std::max<std::int64_t>(1, layers - remove);
       --left) {
    block_runs += left * (left - 1) / 2;
    heads += left;
  }
  cost.flops = layer_flops(config, block_runs, tokens, seq_len) +
               static_cast<double>(heads) * head_flops(config, tokens);
  const std::int64_t state =
      tokens * config.hidden_size * static_cast<std::int64_t>(c10::elementSize(type));
  std::int64_t states = all_streams ? layers + 1 : 2;
  if (has({"cos_block"})) states += remove + 1;
  if (gradients) states = std::max(states, layers + 2);
  if (greedy) {
    const std::int64_t snapshots = std::max<std::int64_t>(1ll << 30, weight_bytes(config, type));
    states = std::max(states, layers + std::min(layers * layers / 2, snapshots / state));
  }
  cost.bytes += state * states + forward_bytes(config, std::min<std::int64_t>(tokens, 2560), type) +
                head_bytes(config, 128);
  if (gradients) {
    // A block's gradients, and its intermediate results kept for the backward.
    cost.bytes += 2 * weight_bytes(config, type) / std::max<std::int64_t>(1, layers) +
                  forward_bytes(config, std::min<std::int64_t>(tokens, 2560), type);
  }
  if (has({"cka_adj", "sglp"})) {
    const std::int64_t rows = std::min<std::int64_t>(1024, tokens),
                       batches = (tokens + rows - 1) / rows;
    cost.bytes += (layers + 1) * batches * rows * rows / 2 * 8;
  }
  return cost;
}

}  // namespace espalier::cli
