// Rotary frequencies of a decoder and the tables of cosines and sines for given positions.
#pragma once

#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/models/decoder/config.h"

namespace espalier {

/// Inverse frequencies of a model, float32 on the CPU, [rotary_size / 2] each.
struct RopeFrequencies {
  at::Tensor global;  // of all layers, or of layers without a window when `local` is defined
  at::Tensor local;   // of layers with a window, where they differ (gemma3), else undefined
  at::Tensor beyond;  // longrope: instead of `global` for sequences longer than `limit`
  std::int64_t limit = 0;
  double table_scale = 1;  // of cosines and sines
};

/// In the arithmetic of Hugging Face's reference so that tables agree bit for bit:
/// theta^(-2i/rotary_size), scaled by `rope_scaling` or divided by `rope_factors`.
RopeFrequencies rope_frequencies(const DecoderConfig& config);

struct RopeTables {
  at::Tensor cos, sin;              // [positions, rotary_size]
  at::Tensor local_cos, local_sin;  // the same for layers with a window, where they differ
};
/// Tables of `type` on `device`; positions [n] int64 on the CPU. `longest`: tokens of the longest
/// sequence so far (longrope chooses its factors by it).
RopeTables rope_tables(const RopeFrequencies& frequencies, const at::Tensor& positions,
                       std::int64_t longest, at::ScalarType type, at::Device device);
/// The rows of all of them, in order.
RopeTables join_tables(const std::vector<RopeTables>& tables);

}  // namespace espalier
