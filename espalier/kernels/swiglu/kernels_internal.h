// Backends of silu_mul_ on raw memory: torch-free. Internal.
#pragma once

#include <cstdint>

namespace espalier {

/// gate[i] = silu(gate[i]) * up[i]. bf16 as 16-bit patterns.
void silu_mul_f32(float* gate, const float* up, std::int64_t count);
void silu_mul_bf16(std::uint16_t* gate, const std::uint16_t* up, std::int64_t count);

/// The gradient `g` of gate' = silu(gate) * up: dgate = g up sigma (1 + gate (1 - sigma)) with
/// sigma = 1 / (1 + e^-gate), dup = g silu(gate). Outputs may not overlap inputs.
void silu_mul_backward_f32(const float* gate, const float* up, const float* g, float* dgate,
                           float* dup, std::int64_t count);
void silu_mul_backward_bf16(const std::uint16_t* gate, const std::uint16_t* up,
                            const std::uint16_t* g, std::uint16_t* dgate, std::uint16_t* dup,
                            std::int64_t count);

/// `out` may be `gate`. Only in builds with ESPALIER_CUDA; `stream` is a cudaStream_t.
void launch_silu_mul(const void* gate, const void* up, void* out, std::int64_t count, bool bf16,
                     void* stream);
void launch_silu_mul_backward(const void* gate, const void* up, const void* g, void* dgate,
                              void* dup, std::int64_t count, bool bf16, void* stream);

}  // namespace espalier
