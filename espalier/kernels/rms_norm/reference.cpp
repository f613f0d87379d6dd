// The definition of rms_norm, in float64.
#include "espalier/kernels/rms_norm/rms_norm.h"

namespace espalier {

at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor normed = wide / at::sqrt(at::mean(wide * wide, {-1}, true) + eps);
  return (weight.to(at::kDouble) * normed.to(x.scalar_type()).to(at::kDouble)).to(x.scalar_type());
}

}  // namespace espalier
