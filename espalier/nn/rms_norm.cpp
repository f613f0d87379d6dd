// See rms_norm.h.
#include "espalier/nn/rms_norm.h"

#include "espalier/kernels/rms_norm/rms_norm.h"

namespace espalier {

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  if (!plus_one) return rms_norm(x, weight, eps);
  // In bfloat16, 1 + weight would lose the low bits of weight.
  return rms_norm(x.to(at::kFloat), weight.to(at::kFloat) + 1, eps).to(x.scalar_type());
}

}  // namespace espalier
