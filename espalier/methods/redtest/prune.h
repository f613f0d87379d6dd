// RedTest's pruning: of each run of alike layers the later ones go.
#pragma once

#include <cstdint>

#include "espalier/base/reporter.h"
#include "espalier/eval/image_sample.h"
#include "espalier/methods/redtest/redundancy.h"
#include "espalier/surgery/cnn_plan.h"

namespace espalier::redtest {

struct PruneOptions {
  std::int64_t keep = 0;  // hidden layers that stay, the stem included
  bool allow_stage_head_drop = false;
  RedundancyOptions redundancy;  // of the report; the choice always reads `adjacent`
};

struct PruneResult {
  CnnPrunePlan plan;
  Redundancy before;
};

/// Keeps the stem, the heads of stages (unless they may go) and the layers least like the one
/// before them, `keep` in all. Scores: `redtest`, the CKA of each layer with the one before it (NaN
/// for the first). Throws what check_cnn_pruning and measure_redundancy throw.
PruneResult plan_pruning(const Cnn& net, const ImageSample& images, const PruneOptions& options,
                         Reporter& reporter, const StopToken& stop = never_stop());

}  // namespace espalier::redtest
