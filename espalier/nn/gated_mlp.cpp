// See gated_mlp.h.
#include "espalier/nn/gated_mlp.h"

#include "espalier/kernels/swiglu/swiglu.h"

namespace espalier {

at::Tensor GatedMlp::operator()(const at::Tensor& x) const {
  return down_proj(silu_mul_(gate_proj(x), up_proj(x)));
}

}  // namespace espalier
