// How layer scores that take a choice are computed, for the verbs that score.
#pragma once

#include <cstdint>

#include "espalier/options/options.h"

namespace espalier::cli {

struct ScoringOptions {
  std::int64_t gradient_batch = 10;
  bool taylor_per_batch = false;

  template <class V>
  void visit(V&& option) {
    option("gradient_batch", gradient_batch,
           "sequences per batch of taylor and gradnorm; each batch's loss is a mean of its own",
           at_least(1));
    option("taylor_per_batch", taylor_per_batch,
           "taylor: add |w g| over batches instead of taking | | of the sum; memory then does not "
           "grow with --samples");
  }
};

}  // namespace espalier::cli
