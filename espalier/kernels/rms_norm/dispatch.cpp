// Checks, autograd and choice of backend for rms_norm.
#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/rms_norm/rms_norm.h"

namespace espalier {
namespace {

at::Tensor composed(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(at::mean(at::square(wide), {-1}, /*keepdim=*/true) + eps);
  return weight * (wide * scale).to(x.scalar_type());
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  ESPALIER_ASSERT(weight.dim() == 1 && x.dim() >= 1 && x.size(-1) == weight.size(0));
  return composed(x, weight, eps);
}

at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor normed = wide / at::sqrt(at::mean(wide * wide, {-1}, true) + eps);
  return (weight.to(at::kDouble) * normed.to(x.scalar_type()).to(at::kDouble)).to(x.scalar_type());
}

}  // namespace espalier
