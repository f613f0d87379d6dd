// Rotary frequencies of a decoder and the tables of cosines and sines for given positions.
#pragma once

#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/models/decoder/config.h"

namespace espalier {

/// [head_dim / 2] float32 on the CPU, in the arithmetic of Hugging Face's reference so that tables
/// agree bit for bit: theta^(-2i/head_dim), scaled by `rope_scaling` (llama3 or linear) or divided
/// by `rope_factors`.
at::Tensor rope_inverse_frequencies(const DecoderConfig& config);

/// cos and sin [positions, head_dim] of `type` on `device`; positions [n] int64 on the CPU.
std::pair<at::Tensor, at::Tensor> rope_tables(const at::Tensor& inverse_frequencies,
                                              const at::Tensor& positions, at::ScalarType type,
                                              at::Device device);

}  // namespace espalier
