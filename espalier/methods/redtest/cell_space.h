// The search space "tss" of NATS-Bench: every cell of four nodes, six edges and five operations.
// Draws and mutations; which cell comes next is evolution.h's question.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "espalier/base/random.h"
#include "espalier/models/cnn/nats_cell.h"

namespace espalier::redtest {

inline constexpr std::int64_t kTssCells = 15'625;      // 5 operations on 6 edges
inline constexpr std::int64_t kTssReachable = 15'284;  // of them with a path from input to output

/// Cell 0 .. kTssCells - 1: its number in base 5, the first edge of the string first.
NatsCell tss_cell(std::int64_t number);

/// "310342": one digit per edge in the order of the string, 0 none, 1 skip_connect, 2 nor_conv_1x1,
/// 3 nor_conv_3x3, 4 avg_pool_3x3. Names files and rows, where the string is too long.
std::string cell_id(const NatsCell& cell);

/// Uniform over all cells, those without a path included.
NatsCell draw_cell(RandomStream& stream);

/// The same cell with another operation on one edge; edge and operation uniform.
NatsCell mutate_cell(const NatsCell& cell, RandomStream& stream);

}  // namespace espalier::redtest
