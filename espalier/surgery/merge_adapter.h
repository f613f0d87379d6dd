// An adapter or a delta checkpoint folded into the weights of its model, tensor by tensor, and
// proved: every tensor of the adapter was used, and the result computes what model plus adapter
// compute.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/kernels/gguf_quants/gguf_quants.h"

namespace espalier {

struct MergeOptions {
  /// GGUF models: type of the tensors that change. Nothing: theirs when it is a float type, Q8_0
  /// otherwise. The others are copied as bytes either way.
  std::optional<GgufType> type;
  /// The layers of the adapter's model that MODEL still has, when it was pruned after the adapter
  /// was trained. Nothing: espalier_pruning.json of the model's folder says it, when the adapter
  /// has more layers than the model.
  std::optional<std::vector<std::int64_t>> kept;
  /// Off: an adapter with more layers than the model is refused whatever the folder says.
  bool remap = true;
};

struct MergeSummary {
  std::int64_t low_rank = 0;           // matrices that an adapter was folded into
  std::int64_t replaced = 0;           // tensors taken whole
  std::int64_t adapter_tensors = 0;    // of the adapter's files, all used or left out by the remap
  std::int64_t left_out = 0;           // of them belonging to layers that the model lost
  std::vector<std::int64_t> remapped;  // kept layers used for renumbering; empty: none was needed
  bool untied_head = false;
  std::uint64_t bytes = 0;  // written
  double max_abs_diff = 0;  // of logits, merged against model plus adapter
  double relative_error = 0;
};

/// `source`: a folder or .gguf; `adapter`: a PEFT folder or a delta file; `destination`: an
/// existing, empty folder for a folder, a path for a GGUF file.
///
/// Weights keep their dtype; sums are formed in float32, one tensor at a time. Weights that
/// bitsandbytes quantised become plain ones of the type they had before. A delta of a pruned model
/// may be applied to the unpruned one, whose other layers are then left out. Throws Error(kInput)
/// listing every adapter tensor that fits nothing (first of all layers the model does not have: the
/// hint says on how many layers the adapter was trained), Error(kUnsupported) as PeftFolder::open,
/// Error(kInternal) when the result does not compute the same. `stop` is honoured between tensors.
MergeSummary merge_adapter(const std::filesystem::path& source,
                           const std::filesystem::path& adapter,
                           const std::filesystem::path& destination, const MergeOptions& options,
                           Reporter& reporter, const StopToken& stop = never_stop());

}  // namespace espalier
