// AdamW by ATen's fused kernel, which reads and writes each element once per step on CPU and CUDA.
#include "espalier/train/adamw.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/train/layout_internal.h"

namespace espalier {

AdamW::AdamW(std::vector<at::Tensor> parameters, const AdamWOptions& options)
    : options_(options), parameters_(std::move(parameters)) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& p = parameters_[i];
    ESPALIER_ASSERT(p.scalar_type() == at::kFloat && p.is_non_overlapping_and_dense());
    first_.push_back(at::zeros_like(p));
    second_.push_back(at::zeros_like(p));
    // One for all: the kernel only reads it.
    if (!counter_.defined()) counter_ = at::zeros({}, p.options());
    (p.dim() > 1 ? matrices_ : vectors_).push_back(i);
  }
}

std::int64_t AdamW::steps() const {
  return counter_.defined() ? std::llround(counter_.item<double>()) : 0;
}

void AdamW::set_steps(std::int64_t steps) {
  if (counter_.defined()) counter_.fill_(static_cast<double>(steps));
}

void AdamW::step(const std::vector<at::Tensor>& gradients, double lr) { step_all(gradients, lr); }
void AdamW::step(const std::vector<at::Tensor>& gradients, const at::Tensor& lr) {
  step_all(gradients, lr);
}

template <class Rate>
void AdamW::step_all(const std::vector<at::Tensor>& gradients, const Rate& lr) {
  ESPALIER_ASSERT(gradients.size() == parameters_.size());
  const at::NoGradGuard no_grad;
  if (counter_.defined()) counter_.add_(1);
  step_group(matrices_, gradients, lr, options_.weight_decay);
  step_group(vectors_, gradients, lr, 0);
}

template <class Rate>
void AdamW::step_group(const std::vector<std::size_t>& group,
                       const std::vector<at::Tensor>& gradients, const Rate& lr, double decay) {
  if (group.empty()) return;
  std::vector<at::Tensor> parameters, grads, first, second, counters;
  for (const std::size_t i : group) {
    ESPALIER_ASSERT(gradients[i].scalar_type() == at::kFloat &&
                    gradients[i].sizes() == parameters_[i].sizes());
    parameters.push_back(parameters_[i]);
    grads.push_back(laid_out_as(gradients[i], parameters_[i]));
    first.push_back(first_[i]);
    second.push_back(second_[i]);
    counters.push_back(counter_);
  }
  at::_fused_adamw_(parameters, grads, first, second, {}, counters, lr, options_.beta1,
                    options_.beta2, decay, options_.eps,
                    /*amsgrad=*/false, /*maximize=*/false);
}

}  // namespace espalier
