// `prune sweep`: layer scores x numbers of layers x recoveries, each measured the same way, next to
// the whole model and to one trained from scratch. Scores are computed once; every cell leaves a
// small file, so that a stopped sweep goes on with the next cell.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/methods/layer_pruning/prune_plan.h"
#include "espalier/methods/layer_pruning/sweep_cells.h"
#include "espalier/run/run_folder.h"

namespace espalier::layer_pruning {

struct SweepRequest {
  std::filesystem::path model;       // folder or .gguf
  std::vector<std::int64_t> counts;  // layers to remove
  std::vector<std::string> metrics;  // of metric_names()
  std::vector<Recovery> recoveries;
  std::vector<double> rates;           // learning rates of every recovery that trains
  bool dense = true, scratch = false;  // the rows besides
  PruneRequest scoring;                // calibration, device, dtype, seed; its counts are ignored
  /// Everything else that results depend on, as text: training and evaluation options, files.
  std::string settings;
  double time_budget = 0;    // seconds; no cell is begun that is expected to end later; 0: none
  bool keep_models = false;  // under models/ID, instead of removing each after its evaluation
};

/// What a sweep cannot do itself: training and evaluating, as the verbs do.
struct SweepHooks {
  /// Trains the folder `model` into the folder `healed` (which does not exist; going on from
  /// healed.partial), returns finetune's document.
  std::function<std::string(const std::filesystem::path& model, const std::filesystem::path& healed,
                            const SweepCell& cell)>
      heal;
  /// Returns eval's document of a model.
  std::function<std::string(const std::filesystem::path& model)> evaluate;
};

struct SweepRow {
  SweepCell cell;
  std::optional<SweepResult> result;  // nothing: not run yet, or refused
  std::string shared_with;            // id of the cell whose layers and recovery are the same
};

struct SweepOutcome {
  std::int64_t layers = 0;
  std::vector<SweepRow> rows;  // in the order of the table
  std::int64_t computed = 0;   // cells run by this process
  bool complete = false;
  double score_seconds = 0;  // 0 when the scores were read from an earlier part
  Calibration calibration;
};

/// All cells in order: dense; per number of layers and metric the recoveries, each with every rate;
/// then per number the model from scratch. Choices that a metric refuses (its protected layers are
/// too many) are cells with a reason.
std::vector<SweepCell> plan_cells(const SweepRequest& request,
                                  const std::map<std::int64_t, LayerScores>& scores);

/// Scores of every metric for every number of layers: what does not depend on the number is
/// computed once, sleb for the largest. Read from `folder`/nNN.json when an earlier part left it
/// there for the same settings.
std::map<std::int64_t, LayerScores> sweep_scores(const SweepRequest& request,
                                                 const std::filesystem::path& folder,
                                                 Reporter& reporter, const StopToken& stop,
                                                 SweepOutcome& outcome);

/// Runs what is missing. Writes into `run`: scores/, cells/ID.json, run/report.html and sweep.csv
/// after every cell. A cell whose training or evaluation throws Error(kInput) (a loss that is not
/// finite) is a result: it is recorded as failed and the sweep goes on. Equal removals of several
/// metrics are run once. After a stop request or the time budget the run folder is kept; a stop
/// request throws Interrupted, the budget returns with complete = false. `on_row` (may be empty)
/// hears of every finished cell.
SweepOutcome run_sweep(const SweepRequest& request, const SweepHooks& hooks, RunFolder& run,
                       Reporter& reporter, const StopToken& stop,
                       const std::function<void(const SweepOutcome&)>& on_row = {});

}  // namespace espalier::layer_pruning
