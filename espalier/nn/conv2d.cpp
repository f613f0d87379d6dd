// See conv2d.h.
#include "espalier/nn/conv2d.h"

#include <ATen/ops/conv2d.h>

namespace espalier {

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  const at::Tensor b = bias.defined() ? bias.to(x.scalar_type()) : at::Tensor();
  return at::conv2d(x, weight.to(x.scalar_type()), b, {stride, stride}, {padding, padding});
}

}  // namespace espalier
