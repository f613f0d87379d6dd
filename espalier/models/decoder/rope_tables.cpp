// See rope_tables.h.
#include "espalier/models/decoder/rope_tables.h"

#include <numbers>

#include <c10/core/GradMode.h>

namespace espalier {
namespace {

/// Slows frequencies down by wavelength: short waves stay, long ones are divided by `factor`, those
/// between are blended.
at::Tensor llama3_scaled(const at::Tensor& inv_freq, const RopeScaling& scaling) {
  const at::Tensor wavelength = at::reciprocal(inv_freq) * (2 * std::numbers::pi);
  const double longest = scaling.original_context / scaling.low_freq_factor,
               shortest = scaling.original_context / scaling.high_freq_factor;
  const at::Tensor divided = at::where(wavelength.gt(longest), inv_freq / scaling.factor, inv_freq);
  const at::Tensor smooth =
      (at::reciprocal(wavelength) * scaling.original_context - scaling.low_freq_factor) /
      (scaling.high_freq_factor - scaling.low_freq_factor);
  const at::Tensor blended = (1 - smooth) * divided / scaling.factor + smooth * divided;
  const at::Tensor between =
      wavelength.lt(shortest).logical_not().logical_and(wavelength.gt(longest).logical_not());
  return at::where(between, blended, divided);
}

}  // namespace

at::Tensor rope_inverse_frequencies(const DecoderConfig& config) {
  const at::Tensor exponent = at::arange(0, config.head_dim, 2, at::kLong).to(at::kFloat) /
                              static_cast<double>(config.head_dim);
  const at::Tensor inv_freq = at::reciprocal(at::pow(at::Scalar(config.rope_theta), exponent));
  if (!config.rope_factors.empty()) {
    return inv_freq / at::tensor(config.rope_factors, at::kDouble).to(at::kFloat);
  }
  switch (config.rope_scaling.kind) {
    case RopeScaling::Kind::kLlama3:
      return llama3_scaled(inv_freq, config.rope_scaling);
    case RopeScaling::Kind::kLinear:
      return inv_freq / config.rope_scaling.factor;
    case RopeScaling::Kind::kNone:
      break;
  }
  return inv_freq;
}

std::pair<at::Tensor, at::Tensor> rope_tables(const at::Tensor& inverse_frequencies,
                                              const at::Tensor& positions, at::ScalarType type,
                                              at::Device device) {
  c10::NoGradGuard no_grad;
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) *
                            inverse_frequencies.unsqueeze(0);  // [n, head_dim / 2]
  const at::Tensor twice = at::cat({angles, angles}, 1);
  return {at::cos(twice).to(type).to(device), at::sin(twice).to(type).to(device)};
}

}  // namespace espalier
