// Checks, autograd and choice of backend for rope.
#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/rope/rope.h"

namespace espalier {

at::Tensor rope_(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  ESPALIER_ASSERT(x.dim() == 4 && cos.dim() == 2 && cos.sizes() == sin.sizes());
  ESPALIER_ASSERT(cos.size(0) == x.size(1) && cos.size(1) == x.size(3) && x.size(3) % 2 == 0);
  return rope_reference(x, cos, sin);
}

at::Tensor rope_reference(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const std::int64_t half = x.size(3) / 2;
  const at::Tensor turned = at::cat({-x.narrow(3, half, half), x.narrow(3, 0, half)}, 3);
  return x * cos.unsqueeze(1) + turned * sin.unsqueeze(1);  // cos, sin [tokens, 1, head_dim]
}

}  // namespace espalier
