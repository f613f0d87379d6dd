// See gguf_matrix.h.
#include "espalier/kernels/gguf_quants/gguf_matrix.h"

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/kernels/gguf_quants/gguf_dot.h"

namespace espalier {

at::Tensor gguf_matmul_nt(const at::Tensor& x, const GgufMatrix& weight) {
  ESPALIER_ASSERT(x.scalar_type() == at::kFloat && x.device().is_cpu() && x.dim() >= 1 &&
                  x.size(-1) == weight.in && weight.in > 0);
  const at::Tensor rows = x.contiguous();
  auto sizes = x.sizes().vec();
  sizes.back() = weight.out;
  const at::Tensor y = at::empty(sizes, x.options());
  quantized_linear(weight.type, weight.data, weight.out, weight.in,
                   {rows.const_data_ptr<float>(), static_cast<std::size_t>(rows.numel())},
                   rows.numel() / weight.in,
                   {y.mutable_data_ptr<float>(), static_cast<std::size_t>(y.numel())});
  return y;
}

}  // namespace espalier
