// Checks, autograd and choice of backend for rms_norm.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/cuda_internal.h"
#include "espalier/kernels/rms_norm/kernels_internal.h"
#include "espalier/kernels/rms_norm/rms_norm.h"

namespace espalier {
namespace {

constexpr std::int64_t kGrainElements =
    16384;  // about 4 us of work: below that a second thread costs more than it brings

at::Tensor composed(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(at::mean(at::square(wide), {-1}, /*keepdim=*/true) + eps);
  return weight * (wide * scale).to(x.scalar_type());
}

bool has_kernel(const at::Tensor& x, const at::Tensor& weight) {
  if (x.scalar_type() != weight.scalar_type() || x.device() != weight.device()) return false;
  if (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16) return false;
  return x.device().is_cpu() || (cuda_kernels_built() && x.device().is_cuda());
}

at::Tensor by_kernel(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor rows = x.contiguous(), scales = weight.contiguous();
  at::Tensor y = at::empty_like(rows);
  RmsNormParams params;
  params.x = rows.const_data_ptr();
  params.weight = scales.const_data_ptr();
  params.y = y.mutable_data_ptr();
  params.width = weight.size(0);
  params.rows = rows.numel() / params.width;
  params.eps = static_cast<float>(eps);
  params.bf16 = x.scalar_type() == at::kBFloat16;
  if (x.device().is_cuda()) {
    run_on_current_stream(x.device(), [&](void* stream) { launch_rms_norm(params, stream); });
    return y;
  }
  at::parallel_for(
      0, params.rows, std::max<std::int64_t>(1, kGrainElements / params.width),
      [&](std::int64_t first, std::int64_t last) { rms_norm_cpu(params, first, last); });
  return y;
}

at::Tensor weight_gradient(const RmsNormBackwardParams& params, const at::Tensor& x) {
  const std::int64_t chunks = (params.rows + kWeightGradientRows - 1) / kWeightGradientRows;
  const at::Tensor partial = at::empty({chunks, params.width}, x.options().dtype(at::kFloat));
  float* sums = partial.mutable_data_ptr<float>();
  if (x.device().is_cuda()) {
    run_on_current_stream(
        x.device(), [&](void* stream) { launch_rms_norm_weight_gradient(params, sums, stream); });
  } else {
    at::parallel_for(0, chunks, 1, [&](std::int64_t first, std::int64_t last) {
      rms_norm_weight_gradient_cpu(params, sums, first, last);
    });
  }
  return partial.sum(0).to(x.scalar_type());
}

/// Keeps x and the weight, not the normalised rows.
class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight, double eps) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["eps"] = eps;
    return by_kernel(x, weight, eps);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor x = saved[0].contiguous(), weight = saved[1].contiguous(),
                     g = grads[0].contiguous();
    const at::Tensor dx = at::empty_like(x);
    RmsNormBackwardParams params;
    params.x = x.const_data_ptr();
    params.weight = weight.const_data_ptr();
    params.g = g.const_data_ptr();
    params.dx = dx.mutable_data_ptr();
    params.width = weight.size(0);
    params.rows = x.numel() / params.width;
    params.eps = static_cast<float>(ctx->saved_data["eps"].toDouble());
    params.bf16 = x.scalar_type() == at::kBFloat16;
    const at::Tensor scale = at::empty({params.rows}, x.options().dtype(at::kFloat));
    params.scale = scale.mutable_data_ptr<float>();
    if (x.device().is_cuda()) {
      run_on_current_stream(x.device(),
                            [&](void* stream) { launch_rms_norm_backward(params, stream); });
    } else {
      at::parallel_for(0, params.rows, std::max<std::int64_t>(1, kGrainElements / params.width),
                       [&](std::int64_t first, std::int64_t last) {
                         rms_norm_backward_cpu(params, first, last);
                       });
    }
    return {dx.view(saved[0].sizes()),
            ctx->needs_input_grad(1) ? weight_gradient(params, x) : at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  ESPALIER_ASSERT(weight.dim() == 1 && x.dim() >= 1 && x.size(-1) == weight.size(0) &&
                  weight.size(0) > 0);
  if (!has_kernel(x, weight)) return composed(x, weight, eps);
  if (needs_grad(x, weight)) return RmsNormFunction::apply(x, weight, eps);
  return by_kernel(x, weight, eps);
}

}  // namespace espalier
