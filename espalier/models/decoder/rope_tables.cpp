// See rope_tables.h.
#include "espalier/models/decoder/rope_tables.h"

#include <numbers>
#include <tuple>

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

at::Tensor plain_frequencies(double theta, std::int64_t size) {
  const at::Tensor exponent =
      at::arange(0, size, 2, at::kLong).to(at::kFloat) / static_cast<double>(size);
  return at::reciprocal(at::pow(at::Scalar(theta), exponent));
}

/// 1 / (factor * theta^(2i/size)), in that order of rounding.
at::Tensor divided(const DecoderConfig& config, const std::vector<double>& factors) {
  const std::int64_t size = config.rotary_size();
  const at::Tensor exponent =
      at::arange(0, size, 2, at::kLong).to(at::kFloat) / static_cast<double>(size);
  return at::reciprocal(at::tensor(factors, at::kDouble).to(at::kFloat) *
                        at::pow(at::Scalar(config.rope_theta), exponent));
}

std::pair<at::Tensor, at::Tensor> tables_of(const at::Tensor& inverse_frequencies,
                                            const at::Tensor& positions, double scale,
                                            at::ScalarType type, at::Device device) {
  const at::Tensor angles =
      positions.to(at::kFloat).unsqueeze(1) * inverse_frequencies.unsqueeze(0);
  const at::Tensor twice = at::cat({angles, angles}, 1);
  at::Tensor cos = at::cos(twice), sin = at::sin(twice);
  if (scale != 1) {
    cos = cos * scale;
    sin = sin * scale;
  }
  return {cos.to(type).to(device), sin.to(type).to(device)};
}

}  // namespace

RopeFrequencies rope_frequencies(const DecoderConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  RopeFrequencies out;
  out.global = plain_frequencies(config.rope_theta, config.rotary_size());
  if (config.local_rope_theta > 0)
    out.local = plain_frequencies(config.local_rope_theta, config.rotary_size());
  if (!config.rope_factors.empty()) {
    out.global = out.global / at::tensor(config.rope_factors, at::kDouble).to(at::kFloat);
    return out;
  }
  switch (scaling.kind) {
    case RopeScaling::Kind::kLlama3:
      out.global = llama3_scaled(out.global, scaling);
      break;
    case RopeScaling::Kind::kLinear:
      out.global = out.global / scaling.factor;
      break;
    case RopeScaling::Kind::kLongrope:
      out.global = divided(config, scaling.short_factors);
      out.beyond = divided(config, scaling.long_factors);
      out.limit = static_cast<std::int64_t>(scaling.original_context);
      out.table_scale = scaling.attention_factor;
      break;
    case RopeScaling::Kind::kNone:
      break;
  }
  return out;
}

RopeTables rope_tables(const RopeFrequencies& frequencies, const at::Tensor& positions,
                       std::int64_t longest, at::ScalarType type, at::Device device) {
  c10::NoGradGuard no_grad;
  const bool beyond = frequencies.beyond.defined() && longest > frequencies.limit;
  RopeTables out;
  std::tie(out.cos, out.sin) = tables_of(beyond ? frequencies.beyond : frequencies.global,
                                         positions, frequencies.table_scale, type, device);
  if (frequencies.local.defined())
    std::tie(out.local_cos, out.local_sin) =
        tables_of(frequencies.local, positions, 1, type, device);
  return out;
}

RopeTables join_tables(const std::vector<RopeTables>& tables) {
  if (tables.size() == 1) return tables[0];
  const auto join = [&](at::Tensor RopeTables::*part) {
    std::vector<at::Tensor> parts;
    for (const RopeTables& t : tables) parts.push_back(t.*part);
    return parts[0].defined() ? at::cat(parts) : at::Tensor();
  };
  return {join(&RopeTables::cos), join(&RopeTables::sin), join(&RopeTables::local_cos),
          join(&RopeTables::local_sin)};
}

}  // namespace espalier
