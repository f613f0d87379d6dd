// See linear.h.
#include "espalier/nn/linear.h"

#include "espalier/kernels/matmul/matmul.h"

namespace espalier {

at::Tensor Linear::operator()(const at::Tensor& x) const {
  return matmul_nt(x, weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
}

}  // namespace espalier
