// The two tables of NF4. Torch-free.
#pragma once

#include <array>

namespace espalier {

/// The levels in ascending order; index 7 is zero.
const std::array<float, 16>& nf4_levels();
/// The signed 8-bit dynamic map of double quantisation, ascending: 256 values, -0.99296874 to 1.
const std::array<float, 256>& nf4_dynamic_map();

}  // namespace espalier
