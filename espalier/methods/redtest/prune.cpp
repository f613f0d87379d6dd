// See prune.h.
#include "espalier/methods/redtest/prune.h"

#include <cmath>

#include "espalier/base/json_internal.h"
#include "espalier/similarity/layer_choice.h"

namespace espalier::redtest {

PruneResult plan_pruning(const Cnn& net, const ImageSample& images, const PruneOptions& options,
                         Reporter& reporter, const StopToken& stop) {
  check_cnn_pruning(net, options.keep, options.allow_stage_head_drop);
  PruneResult result;
  result.before = measure_redundancy(net, images, options.redundancy, reporter, stop);
  CnnPrunePlan& plan = result.plan;
  plan.method = "redtest";
  plan.allow_stage_head_drop = options.allow_stage_head_drop;
  plan.kept = keep_least_similar(result.before.adjacent, options.keep,
                                 layers_always_kept(net, options.allow_stage_head_drop));
  std::vector<double>& scores = plan.scores["redtest"];
  scores.push_back(std::nan(""));
  scores.insert(scores.end(), result.before.adjacent.begin(), result.before.adjacent.end());
  const Json details = {{"msrs_before", result.before.msrs.value},
                        {"msrs_normalised_before", result.before.msrs.normalised}};
  plan.details = dump_json(details);
  return result;
}

}  // namespace espalier::redtest
