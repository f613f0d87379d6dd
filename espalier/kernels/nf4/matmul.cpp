// Products with NF4 weights: dequantised tile by tile on the CPU, whole on CUDA, then multiplied by
// kernels/matmul.
#include "espalier/kernels/matmul/matmul.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/nf4/nf4.h"

namespace espalier {
namespace {

// Dequantised values alive at a time on the CPU: within the second-level cache they would be read
// twice from it, but a product of fewer columns runs below half speed.
constexpr std::int64_t kTileElements = 1 << 20;

std::int64_t tile_rows(const Nf4Weight& weight) {
  if (!weight.device().is_cpu()) return weight.shape[0];
  const std::int64_t rows = kTileElements / std::max<std::int64_t>(1, weight.shape[1]);
  return std::clamp<std::int64_t>(rows, 1, std::max<std::int64_t>(1, weight.shape[0]));
}

at::Tensor product(const at::Tensor& x, const Nf4Weight& weight,
                   const std::optional<at::Tensor>& bias) {
  const std::int64_t out = weight.shape[0], step = tile_rows(weight);
  if (step >= out) return matmul_nt(x, nf4_dequantize(weight, x.scalar_type()), bias);
  auto sizes = x.sizes().vec();
  sizes.back() = out;
  at::Tensor y = at::empty(sizes, x.options());
  for (std::int64_t first = 0; first < out; first += step) {
    const std::int64_t count = std::min(step, out - first);
    y.narrow(-1, first, count)
        .copy_(matmul_nt(x, nf4_dequantize_rows(weight, first, count, x.scalar_type())));
  }
  if (bias) y.add_(*bias);
  return y;
}

struct SavedWeight : torch::CustomClassHolder {
  explicit SavedWeight(Nf4Weight w) : weight(std::move(w)) {}
  Nf4Weight weight;
};

class Nf4MatmulNt : public torch::autograd::Function<Nf4MatmulNt> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& bias, const Nf4Weight& weight) {
    ctx->saved_data["weight"] = c10::IValue::make_capsule(c10::make_intrusive<SavedWeight>(weight));
    ctx->saved_data["bias"] = bias.has_value();
    return product(x, weight, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->saved_data["weight"].toCapsule();
    const Nf4Weight& weight = static_cast<const SavedWeight*>(saved.get())->weight;
    const at::Tensor g = grads[0].reshape({-1, weight.shape[0]});
    auto sizes = grads[0].sizes().vec();
    sizes.back() = weight.shape[1];
    at::Tensor grad_x, grad_bias;
    if (ctx->needs_input_grad(0)) grad_x = nf4_matmul_nn(g, weight).view(sizes);
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(1)) grad_bias = g.sum(0);
    return {grad_x, grad_bias, at::Tensor()};
  }
};

}  // namespace

at::Tensor nf4_matmul_nt(const at::Tensor& x, const Nf4Weight& weight,
                         const std::optional<at::Tensor>& bias) {
  ESPALIER_ASSERT(x.dim() >= 1 && x.size(-1) == weight.shape[1]);
  if (needs_grad(x, bias.value_or(at::Tensor()))) return Nf4MatmulNt::apply(x, bias, weight);
  return product(x, weight, bias);
}

at::Tensor nf4_matmul_nn(const at::Tensor& g, const Nf4Weight& weight) {
  const at::NoGradGuard no_grad;
  const std::int64_t out = weight.shape[0], step = tile_rows(weight);
  ESPALIER_ASSERT(g.dim() == 2 && g.size(1) == out);
  at::Tensor sum;
  for (std::int64_t first = 0; first < out; first += step) {
    const std::int64_t count = std::min(step, out - first);
    const at::Tensor part = matmul_nn(g.narrow(1, first, count),
                                      nf4_dequantize_rows(weight, first, count, g.scalar_type()));
    sum = sum.defined() ? sum.add_(part) : part;
  }
  return sum.defined() ? sum : at::zeros({g.size(0), weight.shape[1]}, g.options());
}

}  // namespace espalier
