// See linear.h.
#include "espalier/nn/linear.h"

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/matmul/matmul.h"

namespace espalier {

at::Tensor Linear::base(const at::Tensor& x) const {
  const auto maybe_bias = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  if (stored != nullptr && x.numel() < kGgufFewRows * stored->in && !needs_grad(x, weight, bias)) {
    at::Tensor y = gguf_matmul_nt(x, *stored);
    return bias.defined() ? y.add_(bias) : y;
  }
  if (nf4 != nullptr) return nf4_matmul_nt(x, *nf4, maybe_bias);
  return matmul_nt(x, weight, maybe_bias);
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  if (adapter == nullptr) return base(x);
  return linear_group(x, {this}).front();
}

}  // namespace espalier
