// Learning rates as a function of the step: warm-up, then linear, cosine or constant, as
// transformers computes them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

enum class LrDecay : std::uint8_t { kLinear, kCosine, kConstant };

/// "linear", "cosine", "constant"; Error(kUsage) otherwise.
LrDecay parse_lr_decay(std::string_view text);
std::string_view lr_decay_name(LrDecay decay);

struct Schedule {
  double lr = 1e-4;         // peak
  std::int64_t warmup = 0;  // steps
  std::int64_t steps =
      0;  // of the whole run; the rate reaches 0 one step after the last (linear, cosine)
  LrDecay decay = LrDecay::kLinear;
};

/// Rate of `step`, counted from 0. During warm-up lr * step / warmup, so the first step of a
/// warm-up has rate 0; after it linear: lr * (steps - step) / (steps - warmup); cosine: lr * (1 +
/// cos(pi * progress)) / 2; constant: lr. Source: get_scheduler of transformers 5.
double learning_rate(const Schedule& schedule, std::int64_t step);

}  // namespace espalier
