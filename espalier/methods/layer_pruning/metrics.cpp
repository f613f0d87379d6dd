// The list of metrics, which layers each of them removes, and what `auto` means.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"
#include "espalier/methods/layer_pruning/score_files.h"
#include "espalier/methods/layer_pruning/scores.h"
#include "espalier/surgery/layer_plan.h"

namespace espalier::layer_pruning {
namespace {

std::string known_metrics() {
  std::string text;
  for (const std::string& name : metric_names()) text += (text.empty() ? "" : ", ") + name;
  return text;
}

/// Best start of a contiguous run. The vector holds one distance per possible start, then NaN.
std::int64_t best_start(const std::string& metric, const std::vector<double>& distances,
                        std::int64_t layers, std::int64_t remove) {
  const auto starts = std::count_if(distances.begin(), distances.end(),
                                    [](double value) { return !std::isnan(value); });
  if (starts != layers - remove + 1) {
    throw Error(ErrorKind::kInput, metric + " scores",
                format("were made for runs of {} layers, but {} layers are to be removed",
                       layers - starts + 1, remove))
        .hint("score the layers again with the same number of layers to remove");
  }
  return std::min_element(distances.begin(), distances.begin() + starts) - distances.begin();
}

/// The layers that may go, best first.
std::vector<std::int64_t> candidates(const LayerScores& scores, const std::string& metric) {
  const std::vector<double>& values = scores.metrics.at(metric);
  const std::vector<std::int64_t> never = protected_layers(metric, scores.layers);
  std::vector<std::int64_t> order;
  for (std::int64_t layer = 0; layer < scores.layers; ++layer) {
    const bool listed = std::isfinite(values[static_cast<std::size_t>(layer)]);
    if (listed && !std::binary_search(never.begin(), never.end(), layer)) order.push_back(layer);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return values[static_cast<std::size_t>(a)] < values[static_cast<std::size_t>(b)];
  });
  return order;
}

[[noreturn]] void refuse_too_many(const LayerScores& scores, const std::string& metric,
                                  std::int64_t remove, std::size_t allowed) {
  const std::vector<std::int64_t> never = protected_layers(metric, scores.layers);
  std::string why = never.empty() ? std::string("lists fewer layers")
                                  : format("never removes layers {}", layer_set_text(never));
  throw Error(ErrorKind::kUsage, metric,
              format("{}: of {} layers at most {} can go, {} are asked for", why, scores.layers,
                     allowed, remove))
      .hint(metric.ends_with('+') ? format("--method {} protects no layer", base_metric(metric))
                                  : std::string("ask for fewer layers, or use another --method"));
}

/// The list was searched for as many rounds as were asked for then; a longer one is not known.
void check_rounds(const LayerScores& scores, std::int64_t remove) {
  const auto rounds = static_cast<std::int64_t>(scores.greedy.removed.size());
  if (remove <= rounds) return;
  throw Error(
      ErrorKind::kInput, "sleb scores",
      format("were searched for {} layers, but {} layers are to be removed", rounds, remove))
      .hint("score the layers again with the same number of layers to remove");
}

}  // namespace

const std::vector<std::string>& metric_names() {
  static const std::vector<std::string> names{
      "reverse", "random",  "mag_l1", "mag_l2",  "bi",       "angular", "cos_block", "ppl",
      "ppl+",    "cka_adj", "taylor", "taylor+", "gradnorm", "sleb",    "sglp"};
  return names;
}

void check_metric(std::string_view metric, std::string_view subject) {
  if (std::find(metric_names().begin(), metric_names().end(), metric) != metric_names().end())
    return;
  throw Error(ErrorKind::kUsage, subject, format("`{}` is not a layer score", metric))
      .hint(format("one of {}", known_metrics()));
}

bool needs_calibration(std::string_view metric) {
  static const std::vector<std::string_view> blind{"reverse", "random", "mag_l1", "mag_l2",
                                                   kOrderMetric};
  return std::find(blind.begin(), blind.end(), metric) == blind.end();
}

bool scores_runs(std::string_view metric) { return metric == "angular" || metric == "cos_block"; }

std::string base_metric(std::string_view metric) {
  if (metric.ends_with('+')) metric.remove_suffix(1);
  return std::string(metric);
}

std::vector<std::int64_t> protected_layers(std::string_view metric, std::int64_t layers) {
  std::vector<std::int64_t> never;
  if (metric.ends_with('+')) never = {0, 1, 2, 3, layers - 2, layers - 1};
  if (metric == "sleb") never = {0, layers - 1};
  if (metric == "sglp") never = {0, 1};  // what a decoder does not survive without
  std::erase_if(never, [&](std::int64_t layer) { return layer < 0 || layer >= layers; });
  std::sort(never.begin(), never.end());
  never.erase(std::unique(never.begin(), never.end()), never.end());
  return never;
}

std::optional<std::vector<double>> blind_scores(std::string_view metric, std::int64_t layers,
                                                std::uint64_t seed) {
  std::vector<double> scores;
  if (metric == "reverse") {
    for (std::int64_t layer = 0; layer < layers; ++layer)
      scores.push_back(static_cast<double>(layers - 1 - layer));
  } else if (metric == "random") {
    RandomStream stream(seed, "random layer scores");
    for (const std::int64_t rank : random_permutation(layers, stream))
      scores.push_back(static_cast<double>(rank));
  } else {
    return std::nullopt;
  }
  return scores;
}

std::vector<std::int64_t> select_layers(const LayerScores& scores, const std::string& metric,
                                        std::int64_t remove) {
  if (metric != kOrderMetric) check_metric(metric, "metric");
  const auto found = scores.metrics.find(metric);
  if (found == scores.metrics.end()) {
    throw Error(ErrorKind::kInput, "scores", format("hold no values of `{}`", metric))
        .hint("score the layers again with this metric");
  }
  if (remove < 1 || remove >= scores.layers) {
    throw Error(ErrorKind::kUsage, "layers to remove",
                format("{} of {} layers; between 1 and {} can be removed", remove, scores.layers,
                       scores.layers - 1));
  }
  const std::vector<double>& values = found->second;
  ESPALIER_ASSERT(static_cast<std::int64_t>(values.size()) == scores.layers);
  if (scores_runs(metric)) {
    std::vector<std::int64_t> run(static_cast<std::size_t>(remove));
    std::iota(run.begin(), run.end(), best_start(metric, values, scores.layers, remove));
    return run;
  }
  if (metric == "sglp") return complement(segment_plan(scores, remove).kept, scores.layers);
  std::vector<std::int64_t> chosen = candidates(scores, metric);
  if (static_cast<std::int64_t>(chosen.size()) < remove)
    refuse_too_many(scores, metric, remove, chosen.size());
  if (metric == "sleb") check_rounds(scores, remove);
  chosen.resize(static_cast<std::size_t>(remove));
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

SegmentPlan segment_plan(const LayerScores& scores, std::int64_t remove) {
  const auto importance = scores.metrics.find("sglp");
  if (importance == scores.metrics.end() || !scores.cka.defined()) {
    throw Error(ErrorKind::kInput, "sglp scores",
                importance == scores.metrics.end()
                    ? "there are none"
                    : "come without the matrix `cka`, by which layers are segmented")
        .hint("score the layers again with --metrics sglp");
  }
  return plan_segments(scores.cka, importance->second, scores.layers - remove, scores.segments,
                       protected_layers("sglp", scores.layers));
}

std::vector<std::int64_t> block_order(const LayerScores& scores, const std::string& metric) {
  const std::vector<double>& values = scores.metrics.at(metric);
  std::vector<std::int64_t> order;
  if (!scores_runs(metric)) {
    order = candidates(scores, metric);
    for (const std::int64_t layer : complement(order, scores.layers)) order.push_back(layer);
    return order;
  }
  // The best run first, so that the first n of the list are what the metric removes; then by
  // distance to that run.
  order.resize(values.size());
  std::iota(order.begin(), order.end(), 0);
  const auto past_the_end =
      std::count_if(values.begin(), values.end(), [](double value) { return std::isnan(value); });
  const auto run = select_layers(scores, metric, past_the_end + 1);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    const auto distance = [&](std::int64_t layer) {
      return std::max<std::int64_t>({run.front() - layer, layer - run.back(), 0});
    };
    return distance(a) < distance(b);
  });
  return order;
}

std::string auto_metric(bool recovery, double ratio, std::int64_t hidden_size, bool thorough) {
  if (!recovery) return thorough ? "sleb" : "angular";
  return ratio <= 0.30 && hidden_size >= 2048 ? "reverse" : "bi";
}

}  // namespace espalier::layer_pruning
