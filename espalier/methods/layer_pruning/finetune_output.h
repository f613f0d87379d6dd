// What training leaves: the trained tensors in the file's own dtypes, a complete model folder, and
// the proof that it says what the model in memory said.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/data/training_rows.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

/// The trained float32 masters as they will lie in the output: in the dtype that `source` stores
/// the tensor in (a new lm_head takes the embedding's), float32 for GGUF sources. `model` gets the
/// same, rounded values, so that what is evaluated from here on is what is written.
std::map<std::string, at::Tensor> round_to_stored(const std::filesystem::path& source,
                                                  const std::map<std::string, at::Tensor>& trained,
                                                  Decoder& model);

/// `tensors`, trained on the model at `source`, as the delta file `path` of surgery/delta.h. When
/// `source` was pruned, the file says from how many layers and which are left, so that it fits the
/// unpruned model as well. Reads the file back: Error(kInternal) unless every bit is there.
void write_tuned_delta(const std::filesystem::path& source,
                       const std::map<std::string, at::Tensor>& tensors,
                       const std::filesystem::path& path);

/// Opens `folder` as any user would (weights block by block from the file) and compares its loss on
/// `probe` with `expected`: see verify_tuned.
void verify_finetuned(const std::filesystem::path& folder, const Decoder& model,
                      const TrainingRows& probe, double expected, Reporter& reporter);

/// The loss of `reloaded` on `probe` must be `expected`: bit-equal on the CPU, to 1e-5 relative on
/// a CUDA device. Throws Error(kInternal) with both numbers.
void verify_tuned(const std::filesystem::path& folder, const Decoder& reloaded,
                  const TrainingRows& probe, double expected, Reporter& reporter);

}  // namespace espalier::layer_pruning
