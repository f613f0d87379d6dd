// See layer_choice.h.
#include "espalier/similarity/layer_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr const char* kSubject = "layers to keep";

bool holds(const std::vector<std::int64_t>& layers, std::int64_t layer) {
  return std::find(layers.begin(), layers.end(), layer) != layers.end();
}

at::Tensor square_matrix(const at::Tensor& cka) {
  if (cka.dim() != 2 || cka.size(0) != cka.size(1) || cka.size(0) == 0) {
    throw Error(ErrorKind::kInput, "similarity matrix",
                format("has shape {}, expected a square", shape_text(cka.sizes())));
  }
  return at::nan_to_num(cka.to(at::kCPU, at::kDouble), 0.0).contiguous();
}

/// `always` first, then the others by `cost`, lowest first and ties by index; `keep` of them,
/// ascending.
std::vector<std::int64_t> cheapest(std::span<const double> cost, std::int64_t keep,
                                   const std::vector<std::int64_t>& always) {
  const auto layers = static_cast<std::int64_t>(cost.size());
  const auto fixed = std::count_if(always.begin(), always.end(),
                                   [&](std::int64_t l) { return l >= 0 && l < layers; });
  ESPALIER_ASSERT(fixed == static_cast<std::ptrdiff_t>(always.size()));
  if (keep < 1 || keep > layers) {
    throw Error(ErrorKind::kUsage, kSubject,
                format("{} are asked for, but there are {} layers; 1 to {} can stay", keep, layers,
                       layers));
  }
  if (keep < fixed) {
    throw Error(ErrorKind::kUsage, kSubject,
                format("{} are asked for, but {} are protected", keep, fixed))
        .hint("keep more layers; on a CNN --allow-stage-head-drop lets the heads of stages go");
  }
  std::vector<std::int64_t> order(cost.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    const bool a_stays = holds(always, a), b_stays = holds(always, b);
    if (a_stays != b_stays) return a_stays;
    return cost[static_cast<std::size_t>(a)] < cost[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(keep));
  std::sort(order.begin(), order.end());
  return order;
}

/// Fewest layers of each segment that can stay.
std::vector<std::int64_t> least_of_segments(const Segmentation& segmentation, std::int64_t layers,
                                            const std::vector<std::int64_t>& always) {
  const std::vector<std::int64_t> segment = segmentation.segment_of(layers);
  std::vector<std::int64_t> least(segmentation.starts.size(), 0);
  for (const std::int64_t layer : always)
    ++least[static_cast<std::size_t>(segment[static_cast<std::size_t>(layer)])];
  for (std::int64_t& count : least) count = std::max<std::int64_t>(1, count);
  return least;
}

std::int64_t least_in_all(const Segmentation& segmentation, std::int64_t layers,
                          const std::vector<std::int64_t>& always) {
  const std::vector<std::int64_t> least = least_of_segments(segmentation, layers, always);
  return std::accumulate(least.begin(), least.end(), std::int64_t{0});
}

}  // namespace

std::vector<double> adjacent_similarity(const at::Tensor& cka) {
  const at::Tensor matrix = square_matrix(cka);
  std::vector<double> adjacent;
  for (std::int64_t i = 0; i + 1 < matrix.size(0); ++i)
    adjacent.push_back(matrix.const_data_ptr<double>()[i * matrix.size(0) + i + 1]);
  return adjacent;
}

std::vector<std::int64_t> keep_least_similar(std::span<const double> adjacent, std::int64_t keep,
                                             const std::vector<std::int64_t>& always) {
  std::vector<double> cost{0};
  cost.insert(cost.end(), adjacent.begin(), adjacent.end());
  std::vector<std::int64_t> stay = always;
  if (!holds(stay, 0)) stay.push_back(0);
  return cheapest(cost, keep, stay);
}

std::vector<std::int64_t> keep_most_important(std::span<const double> importance, std::int64_t keep,
                                              const std::vector<std::int64_t>& always) {
  std::vector<double> cost;
  for (const double value : importance) cost.push_back(-value);
  return cheapest(cost, keep, always);
}

Segmentation segment_layers(const at::Tensor& cka, const SegmentRule& rule) {
  const at::Tensor matrix = square_matrix(cka);
  SegmentationOptions options{.tolerance = rule.tolerance, .search = rule.search};
  options.k_max = rule.k_max.value_or(std::min(options.k_max, matrix.size(0)));
  if (rule.on == SegmentOn::kRows) return fisher_segmentation_of_rows(matrix, options);
  const at::Tensor sums = matrix.sum(1);
  return fisher_segmentation(
      {sums.const_data_ptr<double>(), static_cast<std::size_t>(sums.numel())}, options);
}

std::vector<std::int64_t> proportional_budgets(const Segmentation& segmentation,
                                               std::int64_t layers, std::int64_t keep,
                                               const std::vector<std::int64_t>& always) {
  const std::vector<std::int64_t> least = least_of_segments(segmentation, layers, always);
  const std::int64_t needed = least_in_all(segmentation, layers, always);
  if (keep > layers || keep < needed) {
    throw Error(
        ErrorKind::kUsage, kSubject,
        keep > layers
            ? format("{} are asked for, but there are {}", keep, layers)
            : format("{} are asked for, but {} segments with {} protected layers need at least {}",
                     keep, least.size(), always.size(), needed))
        .hint("keep more layers, or lower --segments-max");
  }
  const std::vector<std::int64_t> sizes = segmentation.sizes(layers);
  std::vector<std::int64_t> budgets;
  std::vector<double> quota;
  for (std::size_t s = 0; s < sizes.size(); ++s) {
    quota.push_back(static_cast<double>(keep * sizes[s]) / static_cast<double>(layers));
    budgets.push_back(std::max(least[s], keep * sizes[s] / layers));
  }
  // Lower bounds may have taken too much: give back where the budget is furthest above its quota.
  for (;;) {
    const std::int64_t given = std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0});
    if (given == keep) return budgets;
    const bool more = given < keep;
    std::size_t best = sizes.size();
    double best_gap = 0;
    for (std::size_t s = 0; s < sizes.size(); ++s) {
      if (more ? budgets[s] >= sizes[s] : budgets[s] <= least[s]) continue;
      const double short_of = quota[s] - static_cast<double>(budgets[s]);
      const double gap = more ? short_of : -short_of;
      if (best == sizes.size() || gap > best_gap) {
        best = s;
        best_gap = gap;
      }
    }
    ESPALIER_ASSERT(best < sizes.size());
    budgets[best] += more ? 1 : -1;
  }
}

void check_budgets(const std::vector<std::int64_t>& budgets, const Segmentation& segmentation,
                   std::int64_t layers, std::int64_t keep,
                   const std::vector<std::int64_t>& always) {
  const std::vector<std::int64_t> sizes = segmentation.sizes(layers);
  std::string text;
  for (const std::int64_t size : sizes) text += format("{}{}", text.empty() ? "" : ",", size);
  ProblemList problems(ErrorKind::kUsage, "--segment-keep");
  if (budgets.size() != sizes.size()) {
    problems.add(format("has {} budgets, but there are {} segments, of {} layers", budgets.size(),
                        sizes.size(), text));
    problems.throw_if_any();
  }
  const std::vector<std::int64_t> least = least_of_segments(segmentation, layers, always);
  for (std::size_t s = 0; s < sizes.size(); ++s) {
    if (budgets[s] >= least[s] && budgets[s] <= sizes[s]) continue;
    problems.add(format("keeps {} of segment {}, which has {} layers; {} to {} can stay",
                        budgets[s], s, sizes[s], least[s], sizes[s]));
  }
  const std::int64_t sum = std::accumulate(budgets.begin(), budgets.end(), std::int64_t{0});
  if (sum != keep) problems.add(format("adds up to {}, but {} layers are to stay", sum, keep));
  problems.throw_if_any(format("the segments have {} layers", text));
}

std::vector<std::int64_t> keep_top_of_segments(std::span<const double> importance,
                                               const Segmentation& segmentation,
                                               const std::vector<std::int64_t>& budgets,
                                               const std::vector<std::int64_t>& always) {
  const auto layers = static_cast<std::int64_t>(importance.size());
  const std::vector<std::int64_t> sizes = segmentation.sizes(layers);
  std::vector<std::int64_t> kept;
  for (std::size_t s = 0; s < sizes.size(); ++s) {
    const std::int64_t first = segmentation.starts[s];
    std::vector<std::int64_t> fixed;
    for (const std::int64_t layer : always)
      if (layer >= first && layer < first + sizes[s]) fixed.push_back(layer - first);
    const auto part =
        importance.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(sizes[s]));
    for (const std::int64_t layer : keep_most_important(part, budgets[s], fixed))
      kept.push_back(first + layer);
  }
  return kept;
}

SegmentPlan plan_segments(const at::Tensor& cka, std::span<const double> importance,
                          std::int64_t keep, const SegmentRule& rule,
                          const std::vector<std::int64_t>& always) {
  const auto layers = static_cast<std::int64_t>(importance.size());
  ESPALIER_ASSERT(cka.dim() == 2 && cka.size(0) == layers);
  SegmentPlan plan;
  plan.segmentation = segment_layers(cka, rule);
  if (rule.budgets.empty()) {
    // Unless a number of segments was asked for, there are no more than can keep a layer each.
    SegmentRule fewer = rule;
    while (!rule.k_max && plan.segmentation.starts.size() > 1 &&
           least_in_all(plan.segmentation, layers, always) > keep) {
      fewer.k_max = static_cast<std::int64_t>(plan.segmentation.starts.size()) - 1;
      plan.segmentation = segment_layers(cka, fewer);
    }
    plan.budgets = proportional_budgets(plan.segmentation, layers, keep, always);
  } else {
    check_budgets(rule.budgets, plan.segmentation, layers, keep, always);
    plan.budgets = rule.budgets;
  }
  plan.kept = keep_top_of_segments(importance, plan.segmentation, plan.budgets, always);
  return plan;
}

}  // namespace espalier
