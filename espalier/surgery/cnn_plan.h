// A pruned CNN from a list of hidden layers to a proved folder, and the scores that look at no
// data. Which layers stay is a method's business.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/run/run_folder.h"
#include "espalier/surgery/prune_cnn.h"

namespace espalier {

/// Which hidden layers stay, and why.
struct CnnPrunePlan {
  std::string method;
  std::vector<std::int64_t> kept;                     // ascending indices of the hidden set
  std::map<std::string, std::vector<double>> scores;  // one number per hidden layer; NaN: none
  std::string details = "{}";  // JSON object: what else the record and the result say
  bool allow_stage_head_drop = false;
  std::uint64_t seed = 0;  // of stage heads that start anew
};

/// Layers that every plan keeps: the stem and the heads of stages; with `allow_stage_head_drop` the
/// layer that reads the image alone.
std::vector<std::int64_t> layers_always_kept(const Cnn& net, bool allow_stage_head_drop);

/// Throws what a plan for `net` would throw whatever it keeps: Error(kUnsupported) for cell nets,
/// Error(kUsage) with both numbers for a `keep` outside what is protected and what there is.
void check_cnn_pruning(const Cnn& net, std::int64_t keep, bool allow_stage_head_drop);

/// Sum of |w| over the weights of each hidden layer, norms included, biases not; float64.
std::vector<double> layer_magnitudes(const Cnn& net);

/// Ranks of a permutation drawn from `seed`, one per layer.
std::vector<double> random_layer_ranks(std::int64_t layers, std::uint64_t seed);

/// Baselines that read no data: the layers of largest magnitude stay; a random choice stays.
CnnPrunePlan plan_by_magnitude(const Cnn& net, std::int64_t keep, bool allow_stage_head_drop);
CnnPrunePlan plan_at_random(const Cnn& net, std::int64_t keep, bool allow_stage_head_drop,
                            std::uint64_t seed);

/// The layers of `net` that `kept` does not hold.
std::vector<std::int64_t> dropped_layers(const Cnn& net, const std::vector<std::int64_t>& kept);

/// write_pruned_cnn into the run's folder, with espalier_pruning.json and README.md beside it.
/// `source` and `command_line` are for the record.
PrunedCnn write_planned_cnn(const Cnn& net, const CnnPrunePlan& plan, const std::string& source,
                            const std::string& command_line, RunFolder& run, Reporter& reporter);

}  // namespace espalier
