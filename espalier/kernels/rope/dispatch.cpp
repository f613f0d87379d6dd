// Checks, autograd and choice of backend for rope.
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/rope/kernels_internal.h"
#include "espalier/kernels/rope/rope.h"

namespace espalier {
namespace {

constexpr std::int64_t kGrainElements = 16384;

bool has_kernel(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const bool type = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  return type && x.device().is_cpu() && x.is_contiguous() && cos.is_contiguous() &&
         sin.is_contiguous() && cos.scalar_type() == x.scalar_type() &&
         sin.scalar_type() == x.scalar_type();
}

}  // namespace

at::Tensor rope_(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  ESPALIER_ASSERT(x.dim() == 4 && cos.dim() == 2 && cos.sizes() == sin.sizes());
  ESPALIER_ASSERT(cos.size(0) == x.size(1) && cos.size(1) == x.size(3) && x.size(3) % 2 == 0);
  if (needs_grad(x) || !has_kernel(x, cos, sin)) return rope_reference(x, cos, sin);
  const std::int64_t tokens = x.size(1), heads = x.size(2), head_dim = x.size(3),
                     row = heads * head_dim;
  const bool bf16 = x.scalar_type() == at::kBFloat16;
  void* data = x.mutable_data_ptr();
  const void* cosine = cos.const_data_ptr();
  const void* sine = sin.const_data_ptr();
  at::parallel_for(0, x.size(0) * tokens, std::max<std::int64_t>(1, kGrainElements / row),
                   [&](std::int64_t first, std::int64_t last) {
                     for (std::int64_t i = first; i < last; ++i) {
                       const std::int64_t table = i % tokens * head_dim;
                       if (bf16) {
                         rope_row_bf16(static_cast<std::uint16_t*>(data) + i * row,
                                       static_cast<const std::uint16_t*>(cosine) + table,
                                       static_cast<const std::uint16_t*>(sine) + table, heads,
                                       head_dim);
                       } else {
                         rope_row_f32(static_cast<float*>(data) + i * row,
                                      static_cast<const float*>(cosine) + table,
                                      static_cast<const float*>(sine) + table, heads, head_dim);
                       }
                     }
                   });
  return x;
}

}  // namespace espalier
