// See gated_mlp.h.
#include "espalier/nn/gated_mlp.h"

#include <vector>

#include "espalier/kernels/swiglu/swiglu.h"

namespace espalier {

at::Tensor GatedMlp::operator()(const at::Tensor& x) const {
  std::vector<at::Tensor> halves;
  if (gate_up_proj.defined()) {
    for (const at::Tensor& half : gate_up_proj(x).chunk(2, -1)) halves.push_back(half.contiguous());
  } else {
    // Adapters of both share x: one group.
    halves = linear_group(x, {&gate_proj, &up_proj});
  }
  at::Tensor gated = gelu ? gelu_mul(halves[0], halves[1]) : silu_mul_(halves[0], halves[1]);
  halves.clear();
  return down_proj(gated);
}

}  // namespace espalier
