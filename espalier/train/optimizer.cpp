// See optimizer.h.
#include "espalier/train/optimizer.h"

namespace espalier {
namespace {

std::variant<AdamW, Sgd> make(const std::vector<at::Tensor>& parameters,
                              const OptimizerOptions& options) {
  if (const auto* sgd = std::get_if<SgdOptions>(&options)) return Sgd(parameters, *sgd);
  return AdamW(parameters, std::get<AdamWOptions>(options));
}

}  // namespace

Optimizer::Optimizer(const std::vector<at::Tensor>& parameters, const OptimizerOptions& options)
    : optimizer_(make(parameters, options)) {}

void Optimizer::step(const std::vector<at::Tensor>& gradients, double lr) {
  std::visit([&](auto& optimizer) { optimizer.step(gradients, lr); }, optimizer_);
}

void Optimizer::step(const std::vector<at::Tensor>& gradients, const at::Tensor& lr) {
  std::visit([&](auto& optimizer) { optimizer.step(gradients, lr); }, optimizer_);
}

void Optimizer::set_steps(std::int64_t steps) {
  if (auto* adamw = std::get_if<AdamW>(&optimizer_)) adamw->set_steps(steps);
}

std::vector<std::pair<std::string, std::vector<at::Tensor>>> Optimizer::states() const {
  if (const auto* adamw = std::get_if<AdamW>(&optimizer_))
    return {{"exp_avg", adamw->first_moments()}, {"exp_avg_sq", adamw->second_moments()}};
  const auto& momenta = std::get<Sgd>(optimizer_).momenta();
  if (momenta.empty()) return {};
  return {{"momentum_buffer", momenta}};
}

}  // namespace espalier
