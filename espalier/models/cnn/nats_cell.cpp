// See nats_cell.h.
#include "espalier/models/cnn/nats_cell.h"

#include <vector>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/options/options.h"

namespace espalier {
namespace {

constexpr std::array<std::string_view, kNatsOps> kNames{"none", "skip_connect", "nor_conv_1x1",
                                                        "nor_conv_3x3", "avg_pool_3x3"};
constexpr std::string_view kExample =
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|";

class CellReader {
 public:
  explicit CellReader(std::string_view text) : text_(text) {}

  void expect(std::string_view mark) {
    if (!text_.substr(at_).starts_with(mark)) fail(format("`{}`", mark));
    at_ += mark.size();
  }

  NatsOp operation() {
    const std::string_view word = text_.substr(at_, text_.find_first_of("~|+", at_) - at_);
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      if (word != kNames[i]) continue;
      at_ += word.size();
      return static_cast<NatsOp>(i);
    }
    const std::vector<std::string> names(kNames.begin(), kNames.end());
    const std::string near = nearest(word, names);
    fail(near.empty() ? "none, skip_connect, nor_conv_1x1, nor_conv_3x3 or avg_pool_3x3" : near);
  }

  void end() {
    if (at_ != text_.size()) fail("the end");
  }

 private:
  [[noreturn]] void fail(std::string_view expected) const {
    const std::string_view rest = text_.substr(at_);
    const std::string found =
        rest.empty() ? "the end"
                     : format("`{}{}`", rest.substr(0, 20), rest.size() > 20 ? "..." : "");
    throw Error(ErrorKind::kUsage, "cell",
                format("column {} has {}, expected {}", at_ + 1, found, expected))
        .hint(format("a cell looks like {}", kExample));
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::string_view nats_op_name(NatsOp op) { return kNames.at(static_cast<std::size_t>(op)); }

NatsCell parse_nats_cell(std::string_view text) {
  CellReader reader(text);
  NatsCell cell;
  for (std::size_t i = 0; i < kNatsEdges.size(); ++i) {
    // A group opens at its first input: "|" for the first, "+|" for the others.
    if (kNatsEdges[i].from == 0) reader.expect(i == 0 ? "|" : "+|");
    cell.edges[i] = reader.operation();
    reader.expect(format("~{}|", kNatsEdges[i].from));
  }
  reader.end();
  return cell;
}

std::string nats_cell_text(const NatsCell& cell) {
  std::string text;
  for (std::size_t i = 0; i < kNatsEdges.size(); ++i) {
    if (kNatsEdges[i].from == 0) text += i == 0 ? "|" : "+|";
    text += format("{}~{}|", nats_op_name(cell.edges[i]), kNatsEdges[i].from);
  }
  return text;
}

std::int64_t nats_paths(const NatsCell& cell) {
  std::array<std::int64_t, 4> paths{1, 0, 0, 0};
  // Edges are ordered by their target, so every source is complete when it is read.
  for (std::size_t i = 0; i < kNatsEdges.size(); ++i) {
    if (cell.edges[i] == NatsOp::kNone) continue;
    paths[static_cast<std::size_t>(kNatsEdges[i].to)] +=
        paths[static_cast<std::size_t>(kNatsEdges[i].from)];
  }
  return paths[3];
}

void check_nats_cell(const NatsCell& cell) {
  if (nats_paths(cell) > 0) return;
  std::string missing;
  for (std::size_t i = 0; i < kNatsEdges.size(); ++i) {
    if (cell.edges[i] != NatsOp::kNone) continue;
    missing += format("{}{}-{}", missing.empty() ? "" : ", ", kNatsEdges[i].from, kNatsEdges[i].to);
  }
  throw Error(ErrorKind::kUsage, "cell",
              format("{} has no path from its input (node 0) to its output (node 3): edges {} are "
                     "`none`",
                     nats_cell_text(cell), missing))
      .hint("put an operation on edge 0-3, or on 0-1 and 1-3");
}

}  // namespace espalier
