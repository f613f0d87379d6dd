// What training leaves: the trained tensors in the file's own dtypes, a complete model folder, and
// the proof that it says what the model in memory said.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

/// The trained float32 masters as they will lie in the output: in the dtype that `source` stores
/// the tensor in (a new lm_head takes the embedding's), float32 for GGUF sources. `model` gets the
/// same, rounded values, so that what is evaluated from here on is what is written.
std::map<std::string, at::Tensor> round_to_stored(const std::filesystem::path& source,
                                                  const std::map<std::string, at::Tensor>& trained,
                                                  Decoder& model);

/// Mean next-token NLL of `ids` [rows, tokens]: a fingerprint of the whole forward pass.
double probe_loss(const Decoder& model, const at::Tensor& ids);

/// Opens `folder` as any user would (weights block by block from the file) and compares its loss on
/// `ids` with `expected`: bit-equal on the CPU, to 1e-5 relative on a CUDA device. Throws
/// Error(kInternal) with both numbers.
void verify_finetuned(const std::filesystem::path& folder, const Decoder& model,
                      const at::Tensor& ids, double expected, Reporter& reporter);

}  // namespace espalier::layer_pruning
