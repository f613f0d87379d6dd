// Cell strings: strict reading, writing back, counting paths, cells that see nothing.
#include "espalier/models/cnn/nats_cell.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

constexpr const char* kCell =
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|";

Error error_of(const std::string& text) {
  try {
    check_nats_cell(parse_nats_cell(text));
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << text << " was accepted";
  return Error(ErrorKind::kInternal, "", "");
}

TEST(NatsCellTest, ReadsAndWrites) {
  const NatsCell cell = parse_nats_cell(kCell);
  EXPECT_EQ(cell.edges, (std::array{NatsOp::kConv3x3, NatsOp::kConv1x1, NatsOp::kSkip,
                                    NatsOp::kAvgPool3x3, NatsOp::kNone, NatsOp::kConv3x3}));
  EXPECT_EQ(nats_cell_text(cell), kCell);
}

TEST(NatsCellTest, CountsPaths) {
  const auto paths = [](std::array<int, 6> used) {
    NatsCell cell;
    for (std::size_t i = 0; i < 6; ++i) cell.edges[i] = used[i] ? NatsOp::kSkip : NatsOp::kNone;
    return nats_paths(cell);
  };
  EXPECT_EQ(paths({1, 1, 1, 1, 1, 1}), 4);  // 0-3, 0-1-3, 0-2-3, 0-1-2-3
  EXPECT_EQ(paths({0, 0, 0, 1, 0, 0}), 1);
  EXPECT_EQ(paths({1, 0, 1, 0, 0, 1}), 1);
  EXPECT_EQ(paths({0, 1, 1, 0, 0, 1}), 1);
  EXPECT_EQ(paths({1, 1, 1, 0, 0, 0}), 0);
  EXPECT_EQ(paths({0, 0, 1, 0, 1, 1}), 0);
  EXPECT_EQ(paths({0, 0, 0, 0, 0, 0}), 0);
}

TEST(NatsCellTest, WhatIsWrongIsNamed) {
  const Error unreachable =
      error_of("|none~0|+|none~0|skip_connect~1|+|none~0|skip_connect~1|skip_connect~2|");
  EXPECT_EQ(unreachable.kind(), ErrorKind::kUsage);
  EXPECT_NE(unreachable.message().find("no path from its input (node 0) to its output (node 3): "
                                       "edges 0-1, 0-2, 0-3 are `none`"),
            std::string::npos)
      << unreachable.message();
  EXPECT_EQ(unreachable.hint_text(), "put an operation on edge 0-3, or on 0-1 and 1-3");

  EXPECT_EQ(error_of("|nor_conv_3x3~0|+|nor_conv_3x4~0|none~1|").message(),
            "column 19 has `nor_conv_3x4~0|none~...`, expected nor_conv_3x3");
  EXPECT_EQ(error_of("|none~1|").message(), "column 6 has `~1|`, expected `~0|`");
  EXPECT_EQ(error_of("").message(), "column 1 has the end, expected `|`");
  EXPECT_EQ(error_of(std::string(kCell) + " ").message(), "column 88 has ` `, expected the end");
  EXPECT_EQ(error_of("|none~0| + |none~0|none~1|").message(),
            "column 9 has ` + |none~0|none~1|`, expected `+|`");
  EXPECT_NE(error_of("|pool~0|").message().find("expected none, skip_connect, nor_conv_1x1"),
            std::string::npos);
  EXPECT_NE(error_of("x").hint_text().find("a cell looks like |nor_conv_3x3~0|+|"),
            std::string::npos);
}

}  // namespace
}  // namespace espalier
