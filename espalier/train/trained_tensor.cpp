// Leaves, masters and gradient norms.
#include "espalier/train/trained_tensor.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"

namespace espalier {

TrainedTensor make_trained(std::string name, at::Tensor& slot, const at::Tensor& full_precision) {
  const at::NoGradGuard no_grad;
  TrainedTensor trained;
  trained.name = std::move(name);
  trained.weight =
      slot.detach().clone(slot.is_non_overlapping_and_dense() ? at::MemoryFormat::Preserve
                                                              : at::MemoryFormat::Contiguous);
  if (trained.weight.scalar_type() == at::kFloat) {
    trained.master = trained.weight.detach();
  } else {
    const at::Tensor& source = full_precision.defined() ? full_precision : trained.weight;
    trained.master = at::empty_like(trained.weight, at::kFloat).copy_(source);
    trained.weight.copy_(trained.master);
  }
  trained.weight.set_requires_grad(true);
  slot = trained.weight;
  return trained;
}

void refresh_weights(const std::vector<TrainedTensor>& tensors) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> weights, masters;
  for (const TrainedTensor& t : tensors) {
    if (t.weight.scalar_type() == at::kFloat) continue;
    weights.push_back(t.weight.detach());
    masters.push_back(t.master);
  }
  if (!weights.empty()) at::_foreach_copy_(weights, masters);
}

void freeze(const std::vector<TrainedTensor>& tensors) {
  for (const TrainedTensor& t : tensors) t.weight.set_requires_grad(false);
}

std::int64_t count_elements(const std::vector<TrainedTensor>& tensors) {
  std::int64_t total = 0;
  for (const TrainedTensor& t : tensors) total += t.weight.numel();
  return total;
}

double global_norm(const std::vector<at::Tensor>& gradients) {
  if (gradients.empty()) return 0;
  const std::vector<at::Tensor> norms = at::_foreach_norm(gradients, 2);
  return at::linalg_vector_norm(at::stack(norms).to(at::kDouble), 2).item<double>();
}

at::Tensor clip_on_device(std::vector<at::Tensor>& gradients, double max_norm) {
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> norms = at::_foreach_norm(gradients, 2);
  const at::Tensor norm = at::linalg_vector_norm(at::stack(norms).to(at::kDouble), 2);
  if (max_norm > 0) {
    const at::Tensor scale = ((norm + 1e-6).reciprocal() * max_norm).clamp_max(1);
    at::_foreach_mul_(gradients, scale.to(at::kFloat));
  }
  return norm;
}

double clip_by_global_norm(std::vector<at::Tensor>& gradients, double max_norm) {
  const at::NoGradGuard no_grad;
  const double norm = global_norm(gradients);
  if (max_norm > 0 && norm > max_norm) {
    at::_foreach_mul_(gradients, max_norm / (norm + 1e-6));
  }
  return norm;
}

}  // namespace espalier
