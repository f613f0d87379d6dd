// The gate of llama-like feed-forward blocks.
#pragma once

#include <ATen/core/Tensor.h>

namespace espalier {

/// silu(gate) * up, elementwise, in the dtype of the arguments (the activation is rounded to it
/// before the product, as in the ATen composition). `gate` and `up` have one shape. `gate` is
/// overwritten and returned when nothing needs a gradient (it must then be a tensor of the caller's
/// own making); otherwise a new tensor is returned.
at::Tensor silu_mul_(const at::Tensor& gate, const at::Tensor& up);

/// gelu(gate) * up with gelu in its tanh form (gemma); never in place, differentiable (then by
/// ATen). Without a gradient on the CPU an element's bits do not depend on its place.
at::Tensor gelu_mul(const at::Tensor& gate, const at::Tensor& up);

/// The definition: at::silu(gate) * up.
at::Tensor silu_mul_reference(const at::Tensor& gate, const at::Tensor& up);

}  // namespace espalier
