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
  }
  return "";
}

double learning_rate(const Schedule& schedule, std::int64_t step) {
  if (step < schedule.warmup)
    return schedule.lr * static_cast<double>(step) / static_cast<double>(schedule.warmup);
  const auto decaying =
      static_cast<double>(std::max<std::int64_t>(1, schedule.steps - schedule.warmup));
  const double progress = static_cast<double>(step - schedule.warmup) / decaying;
  switch (schedule.decay) {
    case LrDecay::kLinear:
      return schedule.lr * std::max(0.0, static_cast<double>(schedule.steps - step) / decaying);
    case LrDecay::kCosine:
      return schedule.lr * std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * progress)));
    case LrDecay::kConstant:
      return schedule.lr;
  }
  return schedule.lr;
}

}  // namespace espalier
