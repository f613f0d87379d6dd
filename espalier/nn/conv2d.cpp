// See conv2d.h.
#include "espalier/nn/conv2d.h"

#include <ATen/ops/conv2d.h>

namespace espalier {

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  const at::Tensor b = bias.defined() ? bias.to(x.scalar_type()) : at::Tensor();
  // One kernel for type and layout together: cuDNN and oneDNN would reorder it per call.
  const at::Tensor w = weight.to(weight.options().dtype(x.scalar_type()), /*non_blocking=*/false,
                                 /*copy=*/false, x.suggest_memory_format());
  return at::conv2d(x, w, b, {stride, stride}, {padding, padding});
}

}  // namespace espalier
