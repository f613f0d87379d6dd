// Checks, autograd and choice of backend for silu_mul_.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/cuda_internal.h"
#include "espalier/kernels/swiglu/kernels_internal.h"
#include "espalier/kernels/swiglu/swiglu.h"

namespace espalier {
namespace {

constexpr std::int64_t kGrainElements = 16384;

bool has_kernel(const at::Tensor& gate, const at::Tensor& up) {
  const bool type = gate.scalar_type() == at::kFloat || gate.scalar_type() == at::kBFloat16;
  const bool device = gate.device().is_cpu() || (cuda_kernels_built() && gate.device().is_cuda());
  return type && device && gate.scalar_type() == up.scalar_type() && gate.device() == up.device() &&
         gate.is_contiguous() && up.is_contiguous();
}

const std::uint16_t* bits(const at::Tensor& x, std::int64_t first) {
  return static_cast<const std::uint16_t*>(x.const_data_ptr()) + first;
}
std::uint16_t* mutable_bits(const at::Tensor& x, std::int64_t first) {
  return static_cast<std::uint16_t*>(x.mutable_data_ptr()) + first;
}

void overwrite(const at::Tensor& gate, const at::Tensor& up) {
  const bool bf16 = gate.scalar_type() == at::kBFloat16;
  if (gate.device().is_cuda()) {
    void* data = gate.mutable_data_ptr();
    run_on_current_stream(gate.device(), [&](void* stream) {
      launch_silu_mul(data, up.const_data_ptr(), data, gate.numel(), bf16, stream);
    });
    return;
  }
  at::parallel_for(0, gate.numel(), kGrainElements, [&](std::int64_t first, std::int64_t last) {
    if (bf16) {
      silu_mul_bf16(mutable_bits(gate, first), bits(up, first), last - first);
    } else {
      silu_mul_f32(gate.mutable_data_ptr<float>() + first, up.const_data_ptr<float>() + first,
                   last - first);
    }
  });
}

struct Gradients {
  at::Tensor gate, up;
};

Gradients gradients(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& g) {
  const Gradients out{at::empty_like(gate), at::empty_like(up)};
  const bool bf16 = gate.scalar_type() == at::kBFloat16;
  if (gate.device().is_cuda()) {
    run_on_current_stream(gate.device(), [&](void* stream) {
      launch_silu_mul_backward(gate.const_data_ptr(), up.const_data_ptr(), g.const_data_ptr(),
                               out.gate.mutable_data_ptr(), out.up.mutable_data_ptr(), gate.numel(),
                               bf16, stream);
    });
    return out;
  }
  at::parallel_for(0, gate.numel(), kGrainElements, [&](std::int64_t first, std::int64_t last) {
    if (bf16) {
      silu_mul_backward_bf16(bits(gate, first), bits(up, first), bits(g, first),
                             mutable_bits(out.gate, first), mutable_bits(out.up, first),
                             last - first);
    } else {
      silu_mul_backward_f32(gate.const_data_ptr<float>() + first,
                            up.const_data_ptr<float>() + first, g.const_data_ptr<float>() + first,
                            out.gate.mutable_data_ptr<float>() + first,
                            out.up.mutable_data_ptr<float>() + first, last - first);
    }
  });
  return out;
}

/// Keeps gate and up; the activation is computed again.
class SiluMul : public torch::autograd::Function<SiluMul> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& gate,
                            const at::Tensor& up) {
    ctx->save_for_backward({gate, up});
    at::Tensor out = gate.clone();
    overwrite(out, up);
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    Gradients out = gradients(saved[0], saved[1], grads[0].contiguous());
    return {std::move(out.gate), std::move(out.up)};
  }
};

}  // namespace

at::Tensor silu_mul_(const at::Tensor& gate, const at::Tensor& up) {
  ESPALIER_ASSERT(gate.sizes() == up.sizes());
  if (!has_kernel(gate, up)) return silu_mul_reference(gate, up);
  if (needs_grad(gate, up)) return SiluMul::apply(gate, up);
  overwrite(gate, up);
  return gate;
}

#ifndef ESPALIER_CUDA
// Linked, never reached: dispatch asks cuda_kernels_built() first.
void launch_silu_mul(const void*, const void*, void*, std::int64_t, bool, void*) {
  ESPALIER_ASSERT(cuda_kernels_built());
}
void launch_silu_mul_backward(const void*, const void*, const void*, void*, void*, std::int64_t,
                              bool, void*) {
  ESPALIER_ASSERT(cuda_kernels_built());
}
#endif

}  // namespace espalier
