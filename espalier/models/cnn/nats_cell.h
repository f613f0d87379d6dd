// A cell of the NATS-Bench topology space (the same as NAS-Bench-201): four nodes, six edges, one
// of five operations on each. Only the description; the network is in nats_net.h.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

enum class NatsOp : std::uint8_t { kNone, kSkip, kConv1x1, kConv3x3, kAvgPool3x3 };
inline constexpr std::int64_t kNatsOps = 5;

/// Edges in the order of the string: into node 1 from 0; into 2 from 0, 1; into 3 from 0, 1, 2.
/// A node is the sum of its edges; node 0 is the cell's input, node 3 its output.
struct NatsCell {
  std::array<NatsOp, 6> edges{};

  bool operator==(const NatsCell&) const = default;
};

struct NatsEdge {
  std::int64_t from = 0, to = 0;
};
inline constexpr std::array<NatsEdge, 6> kNatsEdges{
    {{0, 1}, {0, 2}, {1, 2}, {0, 3}, {1, 3}, {2, 3}}};

/// "nor_conv_3x3".
std::string_view nats_op_name(NatsOp op);

/// Reads "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|" with op one of none, skip_connect, nor_conv_1x1,
/// nor_conv_3x3, avg_pool_3x3. Throws Error(kUsage) naming the column and what stands there for
/// anything else, spaces included.
NatsCell parse_nats_cell(std::string_view text);

/// The string that parse_nats_cell reads.
std::string nats_cell_text(const NatsCell& cell);

/// How many paths lead from the cell's input to its output over edges that are not `none`: 0-4.
std::int64_t nats_paths(const NatsCell& cell);

/// Throws Error(kUsage) when no path leads from input to output: such a network sees nothing of its
/// image. The message names the edges that are missing.
void check_nats_cell(const NatsCell& cell);

}  // namespace espalier
