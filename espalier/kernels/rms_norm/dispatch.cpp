// Checks, autograd and choice of backend for rms_norm.
#include <ATen/Parallel.h>

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

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  ESPALIER_ASSERT(weight.dim() == 1 && x.dim() >= 1 && x.size(-1) == weight.size(0) &&
                  weight.size(0) > 0);
  if (needs_grad(x, weight) || !has_kernel(x, weight)) return composed(x, weight, eps);
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

}  // namespace espalier
