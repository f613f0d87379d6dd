// Fresh weights by a tensor's name. Internal to models/cnn.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "espalier/models/cnn/config.h"

namespace espalier {

/// Fills a float32 CPU tensor (or int64 counter) of the net `config` as its family's reference
/// does; a function of (family, name, shape, seed) alone. See Cnn::make.
void initialise_tensor(const CnnConfig& config, const std::string& name, at::Tensor& tensor,
                       std::uint64_t seed);

}  // namespace espalier
