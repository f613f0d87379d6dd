// Which layers a prune removes and what that costs on the calibration text: the decision, before
// any file is written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/methods/layer_pruning/score_files.h"
#include "espalier/methods/layer_pruning/scores.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

/// What the user asked for. Exactly one of remove, keep, kept, ratio, count.
struct PruneRequest {
  std::optional<std::string> remove, keep;        // layer sets as text
  std::optional<std::vector<std::int64_t>> kept;  // read from a file (mergekit.h, plan_file.h)
  std::optional<double> ratio;                    // floor(ratio * L) layers go
  std::optional<std::int64_t> count;
  std::string method = "auto";  // or one of metric_names(); not with remove, keep or kept
  std::optional<std::filesystem::path> scores_file, calibration_file;
  std::int64_t samples = 10, seq_len = 128;
  bool special_in_text = true;
  bool recovery_planned = false;     // for auto
  bool thorough = false;             // auto may take longer: sleb instead of angular
  std::int64_t gradient_batch = 10;  // of taylor and gradnorm, see ScoreOptions
  bool taylor_per_batch = false;
  SegmentRule segments;           // of sglp
  std::int64_t memory_bytes = 0;  // see ScoreOptions
  bool force = false;             // layers 0 and 1 may go
  std::uint64_t seed = 42;
  at::ScalarType type = at::kFloat;
  at::Device device = at::kCPU;
  Residency residency = Residency::kResident;
};

/// One choice of layers and the perplexity of the calibration text without them; 0 when it was not
/// measured.
struct PruneChoice {
  std::string method;
  std::vector<std::int64_t> removed;
  double perplexity = 0;
};

struct PrunePlan {
  std::int64_t layers = 0;
  std::vector<std::int64_t> kept;
  PruneChoice chosen;                    // method "list" when the user named the layers
  std::optional<PruneChoice> runner_up;  // another metric's choice of as many layers
  double dense_perplexity = 0;           // of the calibration text; 0 without one
  std::optional<SegmentPlan> segments;   // of sglp
  LayerScores scores;       // what was computed or read; no metrics for a list without calibration
  Calibration calibration;  // file "" without one
};

/// Number of layers that ratio or count ask for, and the layers of a list. Throws Error(kUsage)
/// unless exactly one of the five is given and the result is a valid removal
/// (surgery/layer_plan.h).
struct RemovalSize {
  std::int64_t count = 0;
  std::vector<std::int64_t> removed;  // when a list was given
};
RemovalSize removal_size(const PruneRequest& request, std::int64_t num_layers);

/// The metric that is also asked for its choice: angular, or bi when angular is the method.
std::string runner_up_metric(const std::string& method);

/// Decides. Opens `model` only when scores or perplexities are needed. Throws what parsing, scoring
/// and checks throw; Error(kUsage) with a hint when the method needs calibration text and there is
/// none.
PrunePlan plan_pruning(const std::filesystem::path& model, const PruneRequest& request,
                       Reporter& reporter, const StopToken& stop);

/// Calibration segments of `file` and their description; warns when the file looks like a test
/// split.
at::Tensor load_calibration(const std::filesystem::path& model, const std::filesystem::path& file,
                            std::int64_t samples, std::int64_t seq_len, bool special_in_text,
                            std::uint64_t seed, Reporter& reporter, Calibration& description);

/// Perplexity of `ids` without the layers `removed`.
double perplexity_without(const Decoder& model, const std::vector<std::int64_t>& removed,
                          const at::Tensor& ids, Reporter& reporter, const StopToken& stop);

}  // namespace espalier::layer_pruning
