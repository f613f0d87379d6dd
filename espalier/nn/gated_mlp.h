// The gated feed-forward block of llama-like models: down(act(gate(x)) * up(x)).
#pragma once

#include "espalier/nn/linear.h"

namespace espalier {

/// Tensor names follow the Hugging Face checkpoints. Either gate_proj and up_proj are defined, or
/// gate_up_proj, their rows one after the other (phi3).
struct GatedMlp {
  Linear gate_proj, up_proj, gate_up_proj, down_proj;
  bool gelu = false;  // act: gelu in its tanh form instead of silu

  template <class V>
  void visit(V&& slot) {
    slot("gate_proj", gate_proj);
    slot("up_proj", up_proj);
    slot("gate_up_proj", gate_up_proj);
    slot("down_proj", down_proj);
  }

  at::Tensor operator()(const at::Tensor& x) const;  // [..., width] -> [..., width]
};

}  // namespace espalier
