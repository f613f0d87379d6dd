// The list of metrics, which layers each of them removes, and what `auto` means.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"
#include "espalier/methods/layer_pruning/scores.h"

namespace espalier::layer_pruning {
namespace {

std::string known_metrics() {
  std::string text;
  for (const std::string& name : metric_names()) text += (text.empty() ? "" : ", ") + name;
  return text;
}

/// Best start of a contiguous run. The vector holds one distance per possible start, then NaN.
std::int64_t best_start(const std::vector<double>& angular, std::int64_t layers,
                        std::int64_t remove) {
  const auto starts = std::count_if(angular.begin(), angular.end(),
                                    [](double value) { return !std::isnan(value); });
  if (starts != layers - remove + 1) {
    throw Error(ErrorKind::kInput, "angular scores",
                format("were made for runs of {} layers, but {} layers are to be removed",
                       layers - starts + 1, remove))
        .hint("score the layers again with the same number of layers to remove");
  }
  return std::min_element(angular.begin(), angular.begin() + starts) - angular.begin();
}

}  // namespace

const std::vector<std::string>& metric_names() {
  static const std::vector<std::string> names{"reverse", "random",  "mag_l1", "mag_l2",
                                              "bi",      "angular", "ppl",    "cka_adj"};
  return names;
}

void check_metric(std::string_view metric, std::string_view subject) {
  if (std::find(metric_names().begin(), metric_names().end(), metric) != metric_names().end())
    return;
  throw Error(ErrorKind::kUsage, subject, format("`{}` is not a layer score", metric))
      .hint(format("one of {}", known_metrics()));
}

bool needs_calibration(std::string_view metric) {
  return metric == "bi" || metric == "angular" || metric == "ppl" || metric == "cka_adj";
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
  check_metric(metric, "metric");
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
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(scores.layers));
  if (metric == "angular") {
    chosen.resize(static_cast<std::size_t>(remove));
    std::iota(chosen.begin(), chosen.end(), best_start(values, scores.layers, remove));
    return chosen;
  }
  std::iota(chosen.begin(), chosen.end(), 0);
  std::stable_sort(chosen.begin(), chosen.end(), [&](std::int64_t a, std::int64_t b) {
    return values[static_cast<std::size_t>(a)] < values[static_cast<std::size_t>(b)];
  });
  chosen.resize(static_cast<std::size_t>(remove));
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<std::int64_t> block_order(const LayerScores& scores, const std::string& metric) {
  const std::vector<double>& values = scores.metrics.at(metric);
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  if (metric != "angular") {
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return values[static_cast<std::size_t>(a)] < values[static_cast<std::size_t>(b)];
    });
    return order;
  }
  // The best run first, so that the first n of the list are what the metric removes; then by
  // distance to that run.
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

std::string auto_metric(bool recovery, double ratio, std::int64_t hidden_size) {
  if (!recovery) return "angular";
  return ratio <= 0.30 && hidden_size >= 2048 ? "reverse" : "bi";
}

}  // namespace espalier::layer_pruning
