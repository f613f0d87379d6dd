// SGD by ATen's fused kernel. A zero buffer makes the first step what torch makes it: b = g.
#include "espalier/train/sgd.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/train/layout_internal.h"

namespace espalier {

Sgd::Sgd(std::vector<at::Tensor> parameters, const SgdOptions& options)
    : options_(options), parameters_(std::move(parameters)) {
  ESPALIER_ASSERT(!options_.nesterov || options_.momentum > 0);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& p = parameters_[i];
    ESPALIER_ASSERT(p.scalar_type() == at::kFloat && p.is_non_overlapping_and_dense());
    if (options_.momentum > 0) momenta_.push_back(at::zeros_like(p));
    (p.dim() > 1 || options_.decay_vectors ? decayed_ : kept_).push_back(i);
  }
}

void Sgd::step(const std::vector<at::Tensor>& gradients, double lr) { step_all(gradients, lr); }
void Sgd::step(const std::vector<at::Tensor>& gradients, const at::Tensor& lr) {
  step_all(gradients, lr);
}

template <class Rate>
void Sgd::step_all(const std::vector<at::Tensor>& gradients, const Rate& lr) {
  ESPALIER_ASSERT(gradients.size() == parameters_.size());
  const at::NoGradGuard no_grad;
  step_group(decayed_, gradients, lr, options_.weight_decay);
  step_group(kept_, gradients, lr, 0);
}

template <class Rate>
void Sgd::step_group(const std::vector<std::size_t>& group,
                     const std::vector<at::Tensor>& gradients, const Rate& lr, double decay) {
  if (group.empty()) return;
  std::vector<at::Tensor> parameters, grads, momenta;
  for (const std::size_t i : group) {
    ESPALIER_ASSERT(gradients[i].scalar_type() == at::kFloat &&
                    gradients[i].sizes() == parameters_[i].sizes());
    parameters.push_back(parameters_[i]);
    grads.push_back(laid_out_as(gradients[i], parameters_[i]));
    if (!momenta_.empty()) momenta.push_back(momenta_[i]);
  }
  at::_fused_sgd_(parameters, grads, momenta, decay, options_.momentum, lr, /*dampening=*/0,
                  options_.nesterov, /*maximize=*/false, /*is_first_step=*/false);
}

}  // namespace espalier
