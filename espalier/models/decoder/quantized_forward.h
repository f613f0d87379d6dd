// A short prompt through some layers of a checkpoint, straight from the mapped bytes: each weight
// is read once, nothing is dequantised into memory, pages are given back as soon as they were used.
// Made for proving that a pruned file computes what the source computes without the removed layers;
// not a way to generate text.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/models/decoder/checkpoint.h"

namespace espalier {

/// Called with the position in `kept_layers` (-1: the embedding) and the residual stream after it,
/// [tokens, d] float32.
using LayerWatcher = std::function<void(std::int64_t position, const at::Tensor& hidden)>;

/// The residual stream [tokens, d] float32 after the layers `kept_layers` of `checkpoint` (before
/// the final norm).
///
/// `ids`: 1 to 4 tokens (more work, but slower per weight). Arithmetic is float32 with weights as
/// stored: F32, F16, BF16 or any quantised GGUF type. The result depends on the bytes of the
/// weights and the ids only, not on threads or on where the layers lie: equal bytes give equal
/// bits. Time: one pass over the bytes of the kept layers; resident memory: at most about 32 MiB of
/// pages at a time. Throws Error(kInput) for ids or layers out of range.
at::Tensor last_hidden(const DecoderCheckpoint& checkpoint,
                       const std::vector<std::int64_t>& kept_layers,
                       const std::vector<std::int64_t>& ids, const LayerWatcher& watch = {});

}  // namespace espalier
