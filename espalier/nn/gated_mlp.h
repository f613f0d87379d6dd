// The gated feed-forward block of llama-like models: down(silu(gate(x)) * up(x)).
#pragma once

#include "espalier/nn/linear.h"

namespace espalier {

/// Tensor names follow the Hugging Face Llama checkpoints.
struct GatedMlp {
  Linear gate_proj, up_proj, down_proj;

  template <class V>
  void visit(V&& slot) {
    slot("gate_proj", gate_proj);
    slot("up_proj", up_proj);
    slot("down_proj", down_proj);
  }

  at::Tensor operator()(const at::Tensor& x) const;  // [..., width] -> [..., width]
};

}  // namespace espalier
