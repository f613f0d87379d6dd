// Iterative pruning: score, remove a few layers, heal, and again (spec 2.3). What heals is the
// caller's; rounds are kept on disk, so that a stopped run goes on with the round it was in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "espalier/methods/layer_pruning/prune_job.h"
#include "espalier/methods/layer_pruning/prune_plan.h"
#include "espalier/run/run_folder.h"

namespace espalier::layer_pruning {

/// Trains the model folder `pruned` and publishes the result as the folder `healed`; goes on from
/// healed.partial when there is one. Returns a JSON document about it ("" for none).
using HealFunction = std::function<std::string(const std::filesystem::path& pruned,
                                               const std::filesystem::path& healed)>;

struct IterativeRound {
  std::vector<std::int64_t> removed;  // by their numbers in the source
  // Of the calibration text: before the removal, after it, after healing; 0 without a text.
  double before = 0, pruned = 0, healed = 0;
  std::string healing;  // HealFunction's document
};

struct IterativeOutcome {
  std::string method;
  std::int64_t layers = 0;
  std::vector<std::int64_t> kept, removed;  // by their numbers in the source
  std::vector<IterativeRound> rounds;
  std::int64_t resumed_rounds = 0;  // found done
  Calibration calibration;
  std::uint64_t bytes = 0;
};

/// Removes as many layers as `request` asks for, `step` at a time (the last round may take fewer),
/// healing after each removal, and leaves the model in `run`, with record and card. `request` has a
/// count or a ratio and a method; `auto` is decided once, with recovery planned. Finished rounds of
/// a resumed run are not repeated; resuming with another request is Error(kUsage). At most two
/// models of a round lie on disk beside the source. Throws what plan_pruning and `heal` throw; the
/// run folder is kept then when a round was finished.
IterativeOutcome prune_iteratively(const PruneJob& job, const PruneRequest& request,
                                   std::int64_t step, const HealFunction& heal, RunFolder& run,
                                   Reporter& reporter, const StopToken& stop);

/// espalier_pruning.json of an iterative run.
std::string iterative_record(const PruneJob& job, const IterativeOutcome& outcome);

/// Rows of a table: round, layers removed, perplexity before, after removal, after healing.
std::vector<std::vector<std::string>> iterative_rows(const IterativeOutcome& outcome);

}  // namespace espalier::layer_pruning
