// Learning rates as a function of the step: warm-up, then linear, cosine or constant, as
// transformers computes them; or in steps at milestones, as torch's MultiStepLR.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

enum class LrDecay : std::uint8_t { kLinear, kCosine, kConstant, kMilestones };

/// "linear", "cosine", "constant"; Error(kUsage) otherwise: milestones are no decay of their own
/// without a list.
LrDecay parse_lr_decay(std::string_view text);
std::string_view lr_decay_name(LrDecay decay);

struct Schedule {
  double lr = 1e-4;         // peak
  std::int64_t warmup = 0;  // steps
  std::int64_t steps =
      0;  // of the whole run; the rate reaches 0 one step after the last (linear, cosine)
  LrDecay decay = LrDecay::kLinear;
  double floor = 0;  // linear and cosine decay to this rate
  /// The rate changes only every so many steps: steps per epoch for a schedule in epochs. Warm-up
  /// does not care.
  std::int64_t granularity = 1;
  /// Steps, ascending, from which on another gamma counts.
  std::vector<std::int64_t> milestones = {};
  double gamma = 0.1;
};

/// Rate of `step`, counted from 0. During warm-up lr * step / warmup, so the first step of a
/// warm-up has rate 0; after it, with r = lr - floor and steps counted in whole granules, linear:
/// floor + r * (steps - step) / (steps - warmup); cosine: floor + r * (1 + cos(pi * progress)) / 2;
/// constant: lr; milestones: lr * gamma^(milestones at or before the step). Sources: get_scheduler
/// of transformers 5; CosineAnnealingLR and MultiStepLR of torch.
double learning_rate(const Schedule& schedule, std::int64_t step);

}  // namespace espalier
