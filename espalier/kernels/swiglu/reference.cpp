// The definition of silu_mul_, by ATen ops.
#include "espalier/kernels/swiglu/swiglu.h"

namespace espalier {

at::Tensor silu_mul_reference(const at::Tensor& gate, const at::Tensor& up) {
  return at::silu(gate) * up;
}

}  // namespace espalier
