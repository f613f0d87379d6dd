// The definition of rope, by ATen ops.
#include "espalier/kernels/rope/rope.h"

namespace espalier {

at::Tensor rope_reference(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const std::int64_t half = x.size(3) / 2;
  const at::Tensor turned = at::cat({-x.narrow(3, half, half), x.narrow(3, 0, half)}, 3);
  return x * cos.unsqueeze(1) + turned * sin.unsqueeze(1);  // cos, sin [tokens, 1, head_dim]
}

}  // namespace espalier
