// What an adapter or a delta changes, tensor by tensor, under the names of the finished model.
// Internal to surgery.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/io/peft_folder.h"
#include "espalier/models/decoder/checkpoint.h"
#include "espalier/surgery/delta.h"
#include "espalier/surgery/merge_adapter.h"

namespace espalier {

/// One of the two is set; both point into WeightEdits.
struct WeightEdit {
  const PeftModule* low_rank = nullptr;
  const StoredTensor* replacement = nullptr;
};

struct WeightEdits {
  std::optional<PeftFolder> peft;
  std::optional<DeltaFile> delta;
  std::map<std::string, WeightEdit> by_name;  // "model.layers.0.self_attn.q_proj.weight"
  std::vector<std::int64_t> prune;            // layers of MODEL that the result keeps; empty: all
  std::vector<std::int64_t> remapped;         // see MergeSummary
  std::int64_t adapter_tensors = 0, left_out = 0;
  bool adds_head = false;  // lm_head.weight, which the tied model does not have

  WeightEdits() = default;
  WeightEdits(const WeightEdits&) = delete;  // by_name points into this object
  WeightEdits& operator=(const WeightEdits&) = delete;
};

/// The edit of this tensor, or null.
const WeightEdit* find_edit(const WeightEdits& edits, const std::string& name);

/// Shapes of MODEL's tensors under Hugging Face names.
using TensorShapes = std::map<std::string, std::vector<std::int64_t>>;

/// Reads `adapter` and pairs every tensor of it with one of the model. All problems in one Error.
void read_weight_edits(const std::filesystem::path& adapter, const std::filesystem::path& source,
                       const DecoderConfig& config, const TensorShapes& shapes,
                       const MergeOptions& options, Reporter& reporter, WeightEdits& edits);

/// `base` [out, in] with the edit, float32 on the CPU. `base` may be undefined for replacements.
at::Tensor edited_weight(const WeightEdit& edit, const at::Tensor& base);

/// Logits of a short prompt by `source` with the adapters beside its weights and by `output`, both
/// streamed layer by layer in float32. Throws Error(kInternal) when the relative error is above
/// `limit`.
void verify_merged(const std::filesystem::path& source, const WeightEdits& edits,
                   const std::filesystem::path& output, double limit, Reporter& reporter,
                   MergeSummary& summary);

}  // namespace espalier
