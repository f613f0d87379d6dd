// SGLP on a CNN: layers are segmented by their similarity, and of each segment the most important
// ones stay.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/eval/image_sample.h"
#include "espalier/similarity/layer_choice.h"
#include "espalier/surgery/cnn_plan.h"

namespace espalier::sglp {

/// Whose gradient decides which layers of a segment stay.
enum class Importance : std::uint8_t {
  kLayer,        // each layer's own, in the trained network
  kCombination,  // that of a network with the combination's trained layers, see importance.h
};

struct SglpOptions {
  std::int64_t keep = 0;  // hidden layers that stay, the stem included
  SegmentRule rule;
  Importance importance = Importance::kLayer;
  bool allow_stage_head_drop = false;
  std::uint64_t seed = 0;  // of combinations' weights and images, and of stage heads made anew
};

struct SglpResult {
  CnnPrunePlan plan;  // scores: `gradnorm` (kLayer), `similarity_sum`
  SegmentPlan segments;
  at::Tensor cka;  // [M, M]: biased, the mean of the batches' ratios, features not pooled
};

/// Throws what check_cnn_pruning, hidden_similarity, plan_segments and the importance throw.
/// Source: SGLP, arXiv 2410.14720 (spec 2.7).
SglpResult plan_pruning(const Cnn& net, const ImageSample& images, const SglpOptions& options,
                        Reporter& reporter, const StopToken& stop = never_stop());

/// The matrix with its segments, and the gradient norms, as one HTML file.
void write_report(const SglpResult& result, const Cnn& net, const std::string& model,
                  const std::string& command_line, const std::filesystem::path& path);

}  // namespace espalier::sglp
