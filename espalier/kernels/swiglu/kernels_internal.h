// Backends of silu_mul_ on raw memory: torch-free. Internal.
#pragma once

#include <cstdint>

namespace espalier {

/// gate[i] = silu(gate[i]) * up[i]. bf16 as 16-bit patterns.
void silu_mul_f32(float* gate, const float* up, std::int64_t count);
void silu_mul_bf16(std::uint16_t* gate, const std::uint16_t* up, std::int64_t count);

}  // namespace espalier
