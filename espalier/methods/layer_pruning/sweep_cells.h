// What a sweep consists of: cells (a removal and a recovery), their results, and the small JSON
// file each of them leaves.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier::layer_pruning {

/// How a pruned model is trained afterwards: none, head, partial:K, lora, qlora, dora, full.
struct Recovery {
  std::string name = "none";  // as above, canonical ("partial:0" is head)
  std::string mode;           // of finetune: "", partial, lora, qlora, dora, full
  std::int64_t last = 0;      // of partial
  bool trains() const { return !mode.empty(); }
};
/// Error(kUsage) with the list of forms.
Recovery parse_recovery(std::string_view text);

struct SweepCell {
  enum class Kind : std::uint8_t {
    kDense,    // the whole model, nothing done
    kPruned,   // layers removed, then the recovery
    kScratch,  // random weights at the pruned depth, everything trained as in the other cells
  };
  Kind kind = Kind::kPruned;
  std::int64_t remove = 0;
  std::string metric;                 // kPruned only
  std::vector<std::int64_t> removed;  // kPruned only
  Recovery recovery;                  // kScratch: full
  double lr = 0;                      // 0 without training
  std::string refused;                // why this cell cannot be run; "" when it can

  /// "n07_bi_partial-3_lr1e-04": file name and handle; distinct within a sweep.
  std::string id() const;
  /// What the result depends on, whichever metric chose the layers: equal keys share a result.
  std::string key() const;
};

struct SweepResult {
  double perplexity = 0, perplexity_stderr = 0;             // 0: not measured
  std::map<std::string, double> accuracy, accuracy_stderr;  // by task
  double seconds = 0;                                       // of the whole cell
  double heal_seconds = 0;                                  // of training alone
  std::uint64_t bytes = 0;                                  // of the weights written
  std::int64_t layers = 0, trainable_parameters = 0, tokens = 0;
  double loss_first = 0, loss_last = 0;
  std::int64_t peak_rss_bytes = 0, peak_device_bytes = 0;  // of the training
  std::string failed;  // why there are no numbers (a loss that became NaN, ...); "" normally
};

/// The numbers in `espalier eval`'s document: results.ppl.perplexity, results.TASK.acc.
void read_evaluation(std::string_view document, SweepResult& result);
/// The numbers in `espalier finetune`'s document.
void read_healing(std::string_view document, SweepResult& result);

/// `settings`: everything else that the result depends on. A file of other settings or another key
/// is no result of this cell (nothing), so a changed command never mixes numbers.
std::string cell_to_json(const SweepCell& cell, const SweepResult& result,
                         const std::string& settings);
std::optional<SweepResult> cell_from_json(const std::filesystem::path& file, const SweepCell& cell,
                                          const std::string& settings);

}  // namespace espalier::layer_pruning
