// Whether a model's weights are loaded or read from the file as they are needed.
#pragma once

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::cli {

/// Weights that fit in memory stay there; others are read layer by layer from the mapped file. Says
/// so when it streams.
Residency choose_residency(const DecoderConfig& config, at::ScalarType type, at::Device device,
                           Reporter& reporter);

}  // namespace espalier::cli
