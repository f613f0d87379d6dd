// Names and shapes of every tensor a decoder must have, and their spelling in Hugging Face and GGUF
// files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/models/decoder/config.h"

namespace espalier {

struct TensorSpec {
  std::string name;  // Hugging Face name
  std::vector<std::int64_t> shape;
};

/// "model.layers.3."
std::string layer_prefix(std::int64_t layer);

/// The tensors of one layer, names after the prefix, in the order of the blocks' `visit`.
std::vector<TensorSpec> layer_tensor_specs(const DecoderConfig& config);

/// All tensors in canonical order: embedding, layers, final norm, head unless tied.
std::vector<TensorSpec> decoder_tensor_specs(const DecoderConfig& config);

/// The layer of "model.layers.12.mlp.up_proj.weight" or "blk.12.ffn_up.weight"; -1 for tensors
/// outside layers and for numbers that are not plain decimal.
std::int64_t layer_of_tensor(std::string_view name);

}  // namespace espalier
