// Backends of rope on raw memory: torch-free. Internal.
#pragma once

#include <cstdint>

namespace espalier {

/// Turns the heads of one token in place: x [heads, head_dim], cosine and sine [head_dim]. bf16 as
/// 16-bit patterns.
void rope_row_f32(float* x, const float* cosine, const float* sine, std::int64_t heads,
                  std::int64_t head_dim);
void rope_row_bf16(std::uint16_t* x, const std::uint16_t* cosine, const std::uint16_t* sine,
                   std::int64_t heads, std::int64_t head_dim);

}  // namespace espalier
