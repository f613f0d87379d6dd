// AdamW by ATen's fused kernel, which reads and writes each element once per step on CPU and CUDA.
#include "espalier/train/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"

namespace espalier {

AdamW::AdamW(std::vector<at::Tensor> parameters, const AdamWOptions& options)
    : options_(options), parameters_(std::move(parameters)) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& p = parameters_[i];
    ESPALIER_ASSERT(p.scalar_type() == at::kFloat && p.is_contiguous());
    first_.push_back(at::zeros_like(p));
    second_.push_back(at::zeros_like(p));
    // One for all: the kernel only reads it.
    if (!counter_.defined()) counter_ = at::zeros({}, p.options());
    (p.dim() > 1 ? matrices_ : vectors_).push_back(i);
  }
}

void AdamW::step(const std::vector<at::Tensor>& gradients, double lr) {
  ESPALIER_ASSERT(gradients.size() == parameters_.size());
  const at::NoGradGuard no_grad;
  ++steps_;
  if (counter_.defined()) counter_.fill_(static_cast<double>(steps_));
  step_group(matrices_, gradients, lr, options_.weight_decay);
  step_group(vectors_, gradients, lr, 0);
}

void AdamW::step_group(const std::vector<std::size_t>& group,
                       const std::vector<at::Tensor>& gradients, double lr, double decay) {
  if (group.empty()) return;
  std::vector<at::Tensor> parameters, grads, first, second, counters;
  for (const std::size_t i : group) {
    ESPALIER_ASSERT(gradients[i].scalar_type() == at::kFloat &&
                    gradients[i].sizes() == parameters_[i].sizes());
    parameters.push_back(parameters_[i]);
    // The kernel walks raw memory: a gradient laid out otherwise (a transposed product) must be
    // copied into order.
    grads.push_back(gradients[i].contiguous());
    first.push_back(first_[i]);
    second.push_back(second_[i]);
    counters.push_back(counter_);
  }
  at::_fused_adamw_(parameters, grads, first, second, {}, counters, lr, options_.beta1,
                    options_.beta2, decay, options_.eps,
                    /*amsgrad=*/false, /*maximize=*/false);
}

}  // namespace espalier
