// What a forward pass costs in operations, bytes and, by a short measurement of this machine,
// seconds. For --dry-run.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "espalier/models/decoder/config.h"

namespace espalier {

/// Multiply-adds counted twice, as is usual: matrices of `layers` layers and attention over rows of
/// seq_len, for `tokens`.
double layer_flops(const DecoderConfig& config, std::int64_t layers, std::int64_t tokens,
                   std::int64_t seq_len);
/// The output head for `tokens` rows.
double head_flops(const DecoderConfig& config, std::int64_t tokens);

/// Bytes of all weights in this type (a tie counted once).
std::int64_t weight_bytes(const DecoderConfig& config, at::ScalarType type);
/// Bytes alive at the peak of a forward without autograd: one layer's intermediate results for
/// `tokens` at once.
std::int64_t forward_bytes(const DecoderConfig& config, std::int64_t tokens, at::ScalarType type);
/// Bytes of logits that the fused head keeps alive.
std::int64_t head_bytes(const DecoderConfig& config, std::int64_t tokens);
/// Resident bytes of a process that has libtorch loaded and no model.
std::int64_t process_bytes();

/// Operations per second of this model's matrices on this device with the threads in use: 0.1 to
/// 0.3 s of measurement.
double measure_flops_per_second(const DecoderConfig& config, at::ScalarType type,
                                at::Device device);

}  // namespace espalier
