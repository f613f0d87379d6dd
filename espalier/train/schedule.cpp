// Learning-rate schedules.
#include "espalier/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier {

LrDecay parse_lr_decay(std::string_view text) {
  for (const LrDecay decay : {LrDecay::kLinear, LrDecay::kCosine, LrDecay::kConstant}) {
    if (text == lr_decay_name(decay)) return decay;
  }
  throw Error(ErrorKind::kUsage, "--lr-decay",
              format("is '{}', allowed are linear, cosine, constant", text));
}

std::string_view lr_decay_name(LrDecay decay) {
  switch (decay) {
    case LrDecay::kLinear:
      return "linear";
    case LrDecay::kCosine:
      return "cosine";
    case LrDecay::kConstant:
      return "constant";
    case LrDecay::kMilestones:
      return "step";
  }
  return "";
}

double learning_rate(const Schedule& schedule, std::int64_t step) {
  if (step < schedule.warmup)
    return schedule.lr * static_cast<double>(step) / static_cast<double>(schedule.warmup);
  const auto decaying =
      static_cast<double>(std::max<std::int64_t>(1, schedule.steps - schedule.warmup));
  const std::int64_t granule = std::max<std::int64_t>(1, schedule.granularity);
  const std::int64_t at = std::max(schedule.warmup, step / granule * granule);
  const double progress = std::min(1.0, static_cast<double>(at - schedule.warmup) / decaying);
  const double range = schedule.lr - schedule.floor;
  switch (schedule.decay) {
    case LrDecay::kLinear:
      return schedule.floor +
             range * std::max(0.0, static_cast<double>(schedule.steps - at) / decaying);
    case LrDecay::kCosine:
      return schedule.floor +
             range * std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * progress)));
    case LrDecay::kConstant:
      return schedule.lr;
    case LrDecay::kMilestones:
      return schedule.lr *
             std::pow(schedule.gamma,
                      std::ranges::count_if(schedule.milestones, [&](auto m) { return m <= at; }));
  }
  return schedule.lr;
}

}  // namespace espalier
