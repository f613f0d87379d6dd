// See scoring_cost.h. The counts are those of methods/layer_pruning/scores.cpp.
#include "apps/cli/scoring_cost.h"

#include <algorithm>

#include <c10/core/ScalarType.h>

#include "espalier/eval/forward_cost.h"
#include "espalier/methods/layer_pruning/scores.h"

namespace espalier::cli {

ScoringCost scoring_cost(const DecoderConfig& config, const std::vector<std::string>& metrics,
                         std::int64_t samples, std::int64_t seq_len, std::int64_t evaluations,
                         at::ScalarType type, Residency residency) {
  const auto has = [&](const char* metric) {
    return std::find(metrics.begin(), metrics.end(), metric) != metrics.end();
  };
  const std::int64_t layers = config.num_layers, tokens = samples * seq_len;
  const bool runs = std::any_of(metrics.begin(), metrics.end(), [](const auto& metric) {
    return layer_pruning::needs_calibration(metric);
  });
  ScoringCost cost;
  cost.bytes = residency == Residency::kResident
                   ? weight_bytes(config, type)
                   : weight_bytes(config, type) / std::max<std::int64_t>(1, layers);
  if (!runs && evaluations == 0) return cost;
  const std::int64_t block_runs = !runs ? 0 : has("ppl") ? layers * (layers + 1) / 2 : layers;
  cost.flops =
      layer_flops(config, block_runs + evaluations * layers, tokens, seq_len) +
      static_cast<double>((has("ppl") ? layers + 1 : 0) + evaluations) * head_flops(config, tokens);
  const std::int64_t state =
      tokens * config.hidden_size * static_cast<std::int64_t>(c10::elementSize(type));
  cost.bytes += state * (has("ppl") ? layers + 1 : 2) +
                forward_bytes(config, std::min<std::int64_t>(tokens, 2560), type) +
                head_bytes(config, 128);
  if (has("cka_adj")) {
    const std::int64_t rows = std::min<std::int64_t>(1024, tokens),
                       batches = (tokens + rows - 1) / rows;
    cost.bytes += (layers + 1) * batches * rows * rows / 2 * 8;
  }
  return cost;
}

}  // namespace espalier::cli
