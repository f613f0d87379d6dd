// Fused optimizers walk raw memory. Internal.
#pragma once

#include <ATen/ATen.h>

namespace espalier {

/// `gradient` with the strides of `parameter`: itself, or (a transposed product, other memory
/// format) a copy.
inline at::Tensor laid_out_as(const at::Tensor& gradient, const at::Tensor& parameter) {
  if (gradient.strides() == parameter.strides()) return gradient;
  return at::empty_like(parameter).copy_(gradient);
}

}  // namespace espalier
