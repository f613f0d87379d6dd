// Permutations of rows, one per epoch, from the named stream "row order".
#include "espalier/data/row_order.h"

#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"

namespace espalier {

RowOrder::RowOrder(std::int64_t rows, std::int64_t batch_size, std::uint64_t seed)
    : rows_(rows), batch_size_(std::min(rows, batch_size)), seed_(seed) {
  if (rows < 1 || batch_size < 1) {
    throw Error(ErrorKind::kInput, "training rows",
                format("{} rows in batches of {}: both must be at least 1", rows, batch_size));
  }
  steps_per_epoch_ = (rows_ + batch_size_ - 1) / batch_size_;
}

std::vector<std::int64_t> RowOrder::batch(std::int64_t step) {
  ESPALIER_ASSERT(step >= 0);
  const std::int64_t epoch = epoch_of(step);
  if (epoch != epoch_) {
    RandomStream stream(seed_, "row order", 0, epoch);
    order_ = random_permutation(rows_, stream);
    epoch_ = epoch;
  }
  const std::int64_t begin = (step % steps_per_epoch_) * batch_size_;
  const std::int64_t end = std::min(begin + batch_size_, rows_);
  return {order_.begin() + begin, order_.begin() + end};
}

}  // namespace espalier
