// Checks, autograd and choice of backend for silu_mul_.
#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/swiglu/swiglu.h"

namespace espalier {

at::Tensor silu_mul_(const at::Tensor& gate, const at::Tensor& up) {
  ESPALIER_ASSERT(gate.sizes() == up.sizes());
  return silu_mul_reference(gate, up);
}

at::Tensor silu_mul_reference(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate) * up; }

}  // namespace espalier
