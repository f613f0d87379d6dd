// The head's loss on a CUDA device without a word to the host: every shape is known beforehand, so
// that a training step can be captured in a graph.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/cuda_internal.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/kernels/linear_cross_entropy/loss_params_internal.h"

namespace espalier {
namespace {

/// Logits alive at a time: enough rows that the products run at full speed, 0.5 GB in bfloat16.
constexpr std::int64_t kLogits = 256 << 20;

at::Tensor product_tn(const at::Tensor& g, const at::Tensor& h) {
  if (g.scalar_type() == at::kFloat) return at::mm(g.t(), h);
  return at::mm(g.t(), h, at::kFloat);
}

/// `logits` [rows, vocab] become their gradient; returns the sum of scaled losses, float32.
at::Tensor replace_by_gradient(const at::Tensor& logits, const at::Tensor& targets,
                               const at::Tensor& scale) {
  const at::Tensor losses = at::empty({logits.size(0)}, scale.options());
  LossParams params;
  params.logits = logits.mutable_data_ptr();
  params.targets = targets.const_data_ptr<std::int64_t>();
  params.scale = scale.const_data_ptr<float>();
  params.losses = losses.mutable_data_ptr<float>();
  params.rows = logits.size(0);
  params.vocab = logits.size(1);
  params.bf16 = logits.scalar_type() == at::kBFloat16;
  run_on_current_stream(logits.device(),
                        [&](void* stream) { launch_loss_and_gradient(params, stream); });
  return losses.sum();
}

class DeviceLoss : public torch::autograd::Function<DeviceLoss> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& h,
                            const at::Tensor& weight, const at::Tensor& targets,
                            const at::Tensor& scale) {
    const std::int64_t count = h.size(0), vocab = weight.size(0);
    const std::int64_t step = std::max<std::int64_t>(128, kLogits / vocab);
    at::Tensor grad_rows, grad_weight, total = at::zeros({}, scale.options());
    if (h.requires_grad()) grad_rows = at::empty_like(h);
    for (std::int64_t first = 0; first < count; first += step) {
      const std::int64_t part = std::min(step, count - first);
      const at::Tensor part_h = h.narrow(0, first, part);
      const at::Tensor g = at::linear(part_h, weight);
      total.add_(replace_by_gradient(g, targets.narrow(0, first, part), scale));
      if (grad_rows.defined()) {
        at::Tensor out = grad_rows.narrow(0, first, part);
        at::mm_out(out, g, weight);
      }
      if (!weight.requires_grad()) continue;
      const at::Tensor more = product_tn(g, part_h);
      if (grad_weight.defined())
        grad_weight.add_(more);
      else
        grad_weight = more;
    }
    if (grad_weight.defined()) grad_weight = grad_weight.to(weight.scalar_type());
    ctx->save_for_backward({grad_rows, grad_weight});
    return total;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& upstream) {
    // The loss is the end of the graph and `scale` its only factor: what comes down is 1, and
    // asking the device would stop the queue.
    ESPALIER_ASSERT(upstream[0].defined());
    const auto saved = ctx->get_saved_variables();
    return {saved[0], saved[1], at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool has_device_loss(const at::Tensor& hidden) {
  return cuda_kernels_built() && hidden.device().is_cuda() &&
         (hidden.scalar_type() == at::kBFloat16 || hidden.scalar_type() == at::kFloat);
}

at::Tensor device_linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                       const at::Tensor& rows, const at::Tensor& targets,
                                       const at::Tensor& scale) {
  ESPALIER_ASSERT(has_device_loss(hidden) && hidden.dim() == 2 && weight.dim() == 2 &&
                  hidden.scalar_type() == weight.scalar_type());
  ESPALIER_ASSERT(targets.dim() == 1 && targets.scalar_type() == at::kLong &&
                  targets.size(0) == (rows.defined() ? rows.size(0) : hidden.size(0)));
  ESPALIER_ASSERT(scale.numel() == 1 && scale.scalar_type() == at::kFloat);
  const at::Tensor counted = rows.defined() ? hidden.index_select(0, rows) : hidden.contiguous();
  return DeviceLoss::apply(counted, weight, targets.contiguous(), scale);
}

#ifndef ESPALIER_CUDA
// Linked, never reached: dispatch asks cuda_kernels_built() first.
void launch_loss_and_gradient(const LossParams&, void*) { ESPALIER_ASSERT(cuda_kernels_built()); }
void launch_nll(const NllParams&, void*) { ESPALIER_ASSERT(cuda_kernels_built()); }
#endif

}  // namespace espalier
