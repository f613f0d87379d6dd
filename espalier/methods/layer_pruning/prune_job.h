// `prune` from a plan to published files: a folder with card and record, or a GGUF file. The caller
// opens the output and publishes it; a plan is made by plan_pruning.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "espalier/base/reporter.h"
#include "espalier/kernels/gguf_quants/gguf_quants.h"
#include "espalier/methods/layer_pruning/prune_plan.h"
#include "espalier/run/run_folder.h"
#include "espalier/surgery/compare_models.h"
#include "espalier/tensor/dtype.h"

namespace espalier::layer_pruning {

struct PruneJob {
  std::filesystem::path source;  // folder or .gguf
  std::optional<GgufType> type;  // of weights that change format; nothing: what loses nothing
  std::string command_line;      // for the model card
  std::string model;             // the source as the user named it, for mergekit.yaml; "": the path
};

struct PruneOutcome {
  std::uint64_t bytes = 0;  // of everything written but run/
  std::optional<ModelComparison>
      comparison;  // when the format changed; else the proof was bit for bit
};

/// Writes the pruned folder into `run`: weights, config, companions, espalier_pruning.json, the
/// same removal as mergekit.yaml, README.md; verified against the source. From a GGUF file the
/// weights are converted on the way. Output digests go into the manifest.
PruneOutcome write_pruned_folder(const PruneJob& job, const PrunePlan& plan, RunFolder& run,
                                 Reporter& reporter, const StopToken& stop);

/// The same as one GGUF file at `destination`; from a folder the weights are converted on the way.
PruneOutcome write_pruned_gguf(const PruneJob& job, const PrunePlan& plan,
                               const std::filesystem::path& destination, Reporter& reporter,
                               const StopToken& stop);

/// espalier_pruning.json: source, method, kept and removed layers, scores, calibration,
/// perplexities.
std::string pruning_record(const PruneJob& job, const PrunePlan& plan);

/// Table of what was measured on the calibration text: dense, chosen, runner-up; empty without one.
std::vector<std::vector<std::string>> perplexity_rows(const PrunePlan& plan);

}  // namespace espalier::layer_pruning
