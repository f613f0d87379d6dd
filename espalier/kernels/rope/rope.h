// Rotary position embedding: pairs of a head's elements turned by an angle that grows with the
// position.
#pragma once

#include <ATen/core/Tensor.h>

namespace espalier {

/// y = x * cos + rotate_half(x) * sin with rotate_half(a, b) = (-b, a) over the halves of head_dim
/// (Hugging Face order).
///
/// `x` [batch, tokens, heads, head_dim], `cos` and `sin` [tokens, head_dim] of x's dtype.
/// Arithmetic in x's dtype, each product rounded before the sum, as the ATen composition does. `x`
/// is overwritten and returned when nothing needs a gradient (it must then be a tensor of the
/// caller's own making); otherwise a new tensor is returned and `x` is left alone.
at::Tensor rope_(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// The definition, by ATen ops; never in place.
at::Tensor rope_reference(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace espalier
