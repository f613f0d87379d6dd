// Does a file hold exactly the tensors its config asks for?
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/models/decoder/config.h"
#include "espalier/models/decoder/tensor_names.h"

namespace espalier {

/// Compares `found` (tensors of a checkpoint, Hugging Face names; an empty name is one that has no
/// counterpart and is reported by `label`) with what `config` needs. Returns every problem: layers
/// that are not 0..L-1, missing tensors, wrong shapes, tensors that belong to nothing. Tensors that
/// old files carry and nobody reads are ignored.
struct FoundTensor {
  std::string name;   // Hugging Face name, "" when unknown
  std::string label;  // as the file spells it
  std::vector<std::int64_t> shape;
};
std::vector<std::string> check_decoder_tensors(
    const DecoderConfig& config, const std::vector<FoundTensor>& found,
    const std::function<std::string(const std::string&)>& label_of);

}  // namespace espalier
