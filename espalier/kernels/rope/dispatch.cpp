// Checks, autograd and choice of backend for rope.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/cuda_internal.h"
#include "espalier/kernels/rope/kernels_internal.h"
#include "espalier/kernels/rope/rope.h"

namespace espalier {
namespace {

constexpr std::int64_t kGrainElements = 16384;

bool has_kernel(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const bool type = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  const bool device = x.device().is_cpu() || (cuda_kernels_built() && x.device().is_cuda());
  return type && device && x.is_contiguous() && cos.is_contiguous() && sin.is_contiguous() &&
         cos.scalar_type() == x.scalar_type() && sin.scalar_type() == x.scalar_type();
}

template <class T>
void turn_rows(const RopeParams& p, std::int64_t first, std::int64_t last) {
  const std::int64_t row = p.heads * p.head_dim;
  for (std::int64_t i = first; i < last; ++i) {
    T* x = static_cast<T*>(p.x) + i * row;
    const T* cosine = static_cast<const T*>(p.cosine) + i % p.tokens * p.head_dim;
    const T* sine = static_cast<const T*>(p.sine) + i % p.tokens * p.head_dim;
    if constexpr (std::is_same_v<T, float>) {
      (p.back ? rope_back_row_f32 : rope_row_f32)(x, cosine, sine, p.heads, p.head_dim);
    } else {
      (p.back ? rope_back_row_bf16 : rope_row_bf16)(x, cosine, sine, p.heads, p.head_dim);
    }
  }
}

enum class Direction : std::uint8_t { kForward, kBack };

void turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, Direction direction) {
  RopeParams p;
  p.x = x.mutable_data_ptr();
  p.cosine = cos.const_data_ptr();
  p.sine = sin.const_data_ptr();
  p.tokens = x.size(1);
  p.rows = x.size(0) * p.tokens;
  p.heads = x.size(2);
  p.head_dim = x.size(3);
  p.bf16 = x.scalar_type() == at::kBFloat16;
  p.back = direction == Direction::kBack;
  if (x.device().is_cuda()) {
    run_on_current_stream(x.device(), [&](void* stream) { launch_rope(p, stream); });
    return;
  }
  at::parallel_for(0, p.rows, std::max<std::int64_t>(1, kGrainElements / (p.heads * p.head_dim)),
                   [&](std::int64_t first, std::int64_t last) {
                     if (p.bf16)
                       turn_rows<std::uint16_t>(p, first, last);
                     else
                       turn_rows<float>(p, first, last);
                   });
}

/// Keeps the tables alone: a turn is undone by turning back.
class Rope : public torch::autograd::Function<Rope> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& cos, const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    at::Tensor y = x.clone();
    turn(y, cos, sin, Direction::kForward);
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    at::Tensor g = grads[0].clone(at::MemoryFormat::Contiguous);
    turn(g, saved[0], saved[1], Direction::kBack);
    return {g, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rope_(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  ESPALIER_ASSERT(x.dim() == 4 && cos.dim() == 2 && cos.sizes() == sin.sizes());
  ESPALIER_ASSERT(cos.size(0) == x.size(1) && cos.size(1) == x.size(3) && x.size(3) % 2 == 0);
  if (!has_kernel(x, cos, sin)) return rope_reference(x, cos, sin);
  if (needs_grad(x)) return Rope::apply(x, cos, sin);
  turn(x, cos, sin, Direction::kForward);
  return x;
}

#ifndef ESPALIER_CUDA
// Linked, never reached: dispatch asks cuda_kernels_built() first.
void launch_rope(const RopeParams&, void*) { ESPALIER_ASSERT(cuda_kernels_built()); }
#endif

}  // namespace espalier
