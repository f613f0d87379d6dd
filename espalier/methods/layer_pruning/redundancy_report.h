// The report of `redundancy`: how alike a model's layers are and what each metric would remove.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "espalier/methods/layer_pruning/prune_plan.h"
#include "espalier/methods/layer_pruning/scores.h"
#include "espalier/similarity/similarity.h"

namespace espalier::layer_pruning {

struct RedundancyResult {
  std::string model;  // as the user named it
  LayerScores scores;
  Calibration calibration;
  std::int64_t remove = 0;           // n of the choices
  std::vector<PruneChoice> choices;  // one per metric, perplexity 0 when not measured
  Msrs msrs;                         // value 0 and no shares without cka_adj
  double tau = 0.8;                  // of msrs
  std::string command_line;
};

/// What each metric of `scores` would remove, in the order of metric_names().
std::vector<PruneChoice> choices_of(const LayerScores& scores, std::int64_t remove);

/// Writes into `folder`: scores.json, block_order_<metric>.csv for each metric, cka.csv when there
/// is a matrix, and run/report.html.
void write_redundancy(const RedundancyResult& result, const std::filesystem::path& folder);

/// The JSON document of the verb (schema espalier.redundancy/1).
std::string redundancy_json(const RedundancyResult& result);

/// Table for stdout: a row per layer, a column per metric.
std::string redundancy_table(const RedundancyResult& result);

}  // namespace espalier::layer_pruning
