// What people and scripts read of a sweep: one table, one JSON document, one report.
#pragma once

#include <string>
#include <vector>

#include "espalier/methods/layer_pruning/sweep.h"

namespace espalier::layer_pruning {

/// The rows of the table; cells that are not finished show "-" and their reason.
struct SweepTable {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};
SweepTable sweep_table(const SweepOutcome& outcome);
/// Per number of layers, metric and recovery the rate with the lowest perplexity (or, without
/// perplexities, the highest mean accuracy).
SweepTable best_rates(const SweepOutcome& outcome);

/// Schema espalier.sweep/1.
std::string sweep_json(const SweepRequest& request, const SweepOutcome& outcome);

/// sweep.csv and run/report.html as they stand.
void write_sweep_files(const SweepRequest& request, const SweepOutcome& outcome,
                       const RunFolder& run);

}  // namespace espalier::layer_pruning
