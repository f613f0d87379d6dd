// One question every fused op asks before it leaves autograd's sight. Internal.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

namespace espalier {

/// True when an op over these tensors must be recorded for a backward pass.
template <class... Tensors>
bool needs_grad(const Tensors&... tensors) {
  return c10::GradMode::is_enabled() && ((tensors.defined() && tensors.requires_grad()) || ...);
}

}  // namespace espalier
