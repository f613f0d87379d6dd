// Tensors of foreign files under the names a net wants. Internal to models/cnn.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

#include "espalier/models/cnn/cnn.h"

namespace espalier {

using TensorMap = std::map<std::string, at::Tensor, std::less<>>;

/// Takes off what trainers wrap around a state dict: an outer dict (`state_dict`, `model`, `net`;
/// whatever lies beside it is dropped) and the prefix `module.` of data-parallel training.
TensorMap unwrapped(TensorMap tensors);

/// The whole net `arch` with the classes and input channels that the file's tensors show.
CnnConfig config_of_tensors(const std::string& arch, const TensorMap& tensors);

/// Copies every tensor into `net` as float32. Throws Error(kInput) with all missing and unexpected
/// tensors, wrong shapes, types that are no floats, NaN and infinite values. A missing
/// num_batches_tracked is 0.
void fill_from(Cnn& net, const TensorMap& tensors, std::string_view source);

}  // namespace espalier
