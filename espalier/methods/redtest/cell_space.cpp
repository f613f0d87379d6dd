// See cell_space.h.
#include "espalier/methods/redtest/cell_space.h"

#include <algorithm>

#include "espalier/base/error.h"

namespace espalier::redtest {

NatsCell tss_cell(std::int64_t number) {
  ESPALIER_ASSERT(number >= 0 && number < kTssCells);
  NatsCell cell;
  for (auto edge = cell.edges.rbegin(); edge != cell.edges.rend(); ++edge) {
    *edge = static_cast<NatsOp>(number % kNatsOps);
    number /= kNatsOps;
  }
  return cell;
}

std::string cell_id(const NatsCell& cell) {
  std::string id;
  for (const NatsOp op : cell.edges) id += static_cast<char>('0' + static_cast<int>(op));
  return id;
}

NatsCell draw_cell(RandomStream& stream) {
  return tss_cell(static_cast<std::int64_t>(stream.below(kTssCells)));
}

NatsCell mutate_cell(const NatsCell& cell, RandomStream& stream) {
  NatsCell child = cell;
  NatsOp& edge = child.edges[stream.below(child.edges.size())];
  // One of the other four: the present one is passed over.
  const auto other = static_cast<std::int64_t>(stream.below(kNatsOps - 1));
  edge = static_cast<NatsOp>(other + (other >= static_cast<std::int64_t>(edge) ? 1 : 0));
  return child;
}

}  // namespace espalier::redtest
