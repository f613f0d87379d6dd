// Root-mean-square normalisation over the last dimension, in one pass.
#pragma once

#include <ATen/core/Tensor.h>

namespace espalier {

/// y = w * cast(x / sqrt(mean(x^2) + eps)): statistics in float32 whatever the dtype, the
/// normalised value rounded to x's dtype before the weight is applied, as Hugging Face models do.
///
/// `x` [..., width] float32 or bfloat16, `weight` [width] of the same dtype -> [..., width]; width
/// >= 1. Rows are independent of each other bit for bit. Differentiable once (by a fused backward
/// that keeps x alone). Throws Error(kInternal) when widths differ. Fusing pays because it is
/// bandwidth-bound: 2 passes of x instead of about 8 in the ATen composition.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// The definition, in float64; result in x's dtype.
at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace espalier
