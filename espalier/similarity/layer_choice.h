// From similarities to the layers that stay: the adjacent rule, and the best of each segment of
// alike layers under a budget. Layers are indices of a hidden set; what they are is the caller's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/similarity/segmentation.h"

namespace espalier {

/// a_i = cka[i, i+1], M - 1 numbers; pairs with a degenerate layer (NaN) count 0.
std::vector<double> adjacent_similarity(const at::Tensor& cka);

/// The `keep` layers that stay, ascending: layer 0, the `always` ones, and then layers i+1 with the
/// smallest adjacent[i] (ties: the lower index), M = adjacent.size() + 1 layers in all. Throws
/// Error(kUsage) with both numbers when `keep` is outside 1..M or less than what always stays.
/// Source: RedTest, arXiv 2411.10507 (spec 2.8).
std::vector<std::int64_t> keep_least_similar(std::span<const double> adjacent, std::int64_t keep,
                                             const std::vector<std::int64_t>& always = {});

/// The `keep` layers with the largest importance, ascending, `always` among them; ties: the lower
/// index. Throws as keep_least_similar.
std::vector<std::int64_t> keep_most_important(std::span<const double> importance, std::int64_t keep,
                                              const std::vector<std::int64_t>& always = {});

/// What the rows of a similarity matrix are to a segmentation.
enum class SegmentOn : std::uint8_t {
  kSum,   // one number per layer: the sum of its row, diagonal included
  kRows,  // the row itself
};

/// How layers are segmented and how many of each segment stay.
struct SegmentRule {
  SegmentOn on = SegmentOn::kSum;
  std::optional<std::int64_t> k_max = {};  // most segments; nothing: 6, or one per layer of fewer
  double tolerance = 0.05;                 // see SegmentationOptions
  SplitSearch search = SplitSearch::kOptimal;
  std::vector<std::int64_t> budgets = {};  // layers that stay of each segment; empty: in proportion
};

/// Segments the layers of `cka` [M, M]; NaN counts 0. Throws what fisher_segmentation throws.
Segmentation segment_layers(const at::Tensor& cka, const SegmentRule& rule);

/// How many layers of each segment stay, `keep` in all: in proportion to the segments' sizes by
/// largest remainder, never fewer than 1 and than the `always` layers of a segment, never more than
/// its size. Throws Error(kUsage) with both numbers when `keep` cannot be met.
std::vector<std::int64_t> proportional_budgets(const Segmentation& segmentation,
                                               std::int64_t layers, std::int64_t keep,
                                               const std::vector<std::int64_t>& always = {});

/// Throws Error(kUsage), all problems at once, unless there is one budget per segment, each at
/// least 1 and what always stays and at most the segment's size, `keep` in all.
void check_budgets(const std::vector<std::int64_t>& budgets, const Segmentation& segmentation,
                   std::int64_t layers, std::int64_t keep,
                   const std::vector<std::int64_t>& always = {});

/// What was cut and what stays.
struct SegmentPlan {
  Segmentation segmentation;
  std::vector<std::int64_t> budgets, kept;
};

/// All of it: segments of `cka`, budgets (given or proportional), the most important layers of
/// each. Without rule.k_max and budgets, more segments than `keep` can serve are not made.
/// `importance` has one finite number per layer. Throws what its steps throw. Source: SGLP, arXiv
/// 2410.14720 (spec 2.7).
SegmentPlan plan_segments(const at::Tensor& cka, std::span<const double> importance,
                          std::int64_t keep, const SegmentRule& rule,
                          const std::vector<std::int64_t>& always = {});

/// The layers with the largest importance of each segment, as many as its budget, ascending;
/// `always` among them. Budgets must have passed check_budgets.
std::vector<std::int64_t> keep_top_of_segments(std::span<const double> importance,
                                               const Segmentation& segmentation,
                                               const std::vector<std::int64_t>& budgets,
                                               const std::vector<std::int64_t>& always = {});

}  // namespace espalier
