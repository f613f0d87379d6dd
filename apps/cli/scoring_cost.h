// What scoring the layers of a decoder costs: for --dry-run of prune and redundancy.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/models/decoder/decoder.h"

#include "apps/cli/cost_options.h"

namespace espalier::cli {

struct ScoringCost {
  std::int64_t bytes = 0;  // weights, streams and one chunk of activations
  double flops = 0;
};

/// `metrics` on samples x seq_len tokens, then `evaluations` perplexities of the same tokens.
/// `remove`: layers that go, for cos_block and sleb; 0 takes a quarter.
ScoringCost scoring_cost(const DecoderConfig& config, const std::vector<std::string>& metrics,
                         std::int64_t samples, std::int64_t seq_len, std::int64_t evaluations,
                         at::ScalarType type, Residency residency, std::int64_t remove = 0);

}  // namespace espalier::cli
