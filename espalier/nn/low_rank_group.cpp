// Adapted layers that share an input, forward and backward as one autograd node. Kept for the
// backward: x once, u = A x (a few columns), the adapters, and the outputs of DoRA layers, which
// the graph holds anyway. Dropout masks are computed again.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/keyed_dropout/keyed_dropout.h"
#include "espalier/kernels/matmul/matmul.h"
#include "espalier/nn/linear.h"
#include "espalier/nn/low_rank.h"

namespace espalier {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What stays the same between forward and backward: layers by value (tensors are shared).
struct Group : torch::CustomClassHolder {
  std::vector<Linear> layers;
  std::vector<at::Tensor> inverse_norms;  // 1 / ||V|| [out] per DoRA layer, else undefined
  double dropout = 0;
  DropoutKey key;
  std::int64_t rank = 0;  // of all layers together

  bool masked() const { return dropout > 0; }
};

c10::intrusive_ptr<Group> make_group(const std::vector<const Linear*>& layers) {
  auto group = c10::make_intrusive<Group>();
  for (const Linear* layer : layers) {
    group->layers.push_back(*layer);
    group->rank += layer->adapter->rank();
    group->inverse_norms.push_back(
        layer->adapter->is_dora() ? adapted_row_norms(*layer).reciprocal_() : at::Tensor());
  }
  const LowRank& first = *layers.front()->adapter;
  if (first.dropout > 0 && first.masks != nullptr && first.masks->active) {
    group->dropout = first.dropout;
    group->key = {first.masks->seed, first.stream, first.masks->counter};
  }
  return group;
}

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

/// All A matrices, one below the other, in the compute dtype: [rank of the group, in].
at::Tensor stacked_a(const Group& group, at::ScalarType type) {
  std::vector<at::Tensor> parts;
  for (const Linear& layer : group.layers) parts.push_back(layer.adapter->a.to(type));
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

at::Tensor base_product(const Linear& layer, const at::Tensor& x) {
  return layer.nf4 ? nf4_matmul_nt(x, *layer.nf4) : matmul_nt(x, layer.weight);
}

/// sum += g W, in place where the library can.
void add_base_gradient(const Linear& layer, const at::Tensor& g, at::Tensor& sum) {
  if (!sum.defined()) {
    sum = layer.nf4 ? nf4_matmul_nn(g, *layer.nf4) : matmul_nn(g, layer.weight);
  } else if (!layer.nf4 && !g.device().is_cpu()) {
    sum.addmm_(g, layer.weight);
  } else {
    sum.add_(layer.nf4 ? nf4_matmul_nn(g, *layer.nf4) : matmul_nn(g, layer.weight));
  }
}

/// left^T right as `type`: accumulated and returned in float32 where the device can.
at::Tensor gradient_product(const at::Tensor& left, const at::Tensor& right, at::ScalarType type) {
  if (left.device().is_cuda() && type == at::kFloat && left.scalar_type() != at::kFloat)
    return at::mm(left.t(), right, at::kFloat);
  return matmul_tn(left, right).to(type);
}

struct Forward {
  std::vector<at::Tensor> y;
  at::Tensor u;  // [rows, rank of the group]
};

Forward compute(const Group& group, const at::Tensor& x) {
  Forward out;
  const at::Tensor rows = rows_of(x);
  const at::Tensor seen = group.masked() ? keyed_dropout(rows, group.dropout, group.key) : rows;
  out.u = matmul_nt(seen, stacked_a(group, x.scalar_type()));
  std::int64_t column = 0;
  for (std::size_t i = 0; i < group.layers.size(); ++i) {
    const Linear& layer = group.layers[i];
    const LowRank& lora = *layer.adapter;
    at::Tensor y = base_product(layer, rows);
    y.addmm_(out.u.narrow(1, column, lora.rank()), lora.b.to(x.scalar_type()).t(), 1, lora.scale);
    if (lora.is_dora()) y.mul_((lora.magnitude * group.inverse_norms[i]).to(x.scalar_type()));
    if (layer.bias.defined()) y.add_(layer.bias);
    auto sizes = x.sizes().vec();
    sizes.back() = layer.out_features();
    out.y.push_back(y.view(sizes));
    column += lora.rank();
  }
  return out;
}

/// Gradient of a DoRA layer's magnitude, from its output: y = magnitude z / norm + bias,
/// so sum_n g z / norm = (sum_n g y - bias sum_n g) / magnitude. A magnitude of exactly zero gets
/// none.
at::Tensor magnitude_gradient(const at::Tensor& g, const at::Tensor& y, const Linear& layer) {
  at::Tensor total = (g.to(at::kFloat) * rows_of(y).to(at::kFloat)).sum(0);
  if (layer.bias.defined())
    total -= layer.bias.detach().to(at::kFloat) * g.sum({0}, false, at::kFloat);
  const at::Tensor magnitude = layer.adapter->magnitude.detach().to(at::kFloat);
  return at::where(magnitude == 0, at::zeros_like(total), total / magnitude)
      .to(layer.adapter->magnitude.scalar_type());
}

class LowRankGroup : public torch::autograd::Function<LowRankGroup> {
 public:
  /// `parameters`: a, b and (DoRA) magnitude of each layer in turn.
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, at::TensorList parameters,
                               const c10::intrusive_ptr<Group>& group) {
    Forward out = compute(*group, x);
    variable_list saved{x, out.u};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    for (std::size_t i = 0; i < group->layers.size(); ++i) {
      if (group->layers[i].adapter->is_dora()) saved.push_back(out.y[i]);
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["group"] = c10::IValue::make_capsule(group);
    ctx->set_materialize_grads(false);
    return out.y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads);
};

variable_list LowRankGroup::backward(AutogradContext* ctx, const variable_list& grads) {
  const auto capsule = ctx->saved_data["group"].toCapsule();
  const Group& group = *static_cast<const Group*>(capsule.get());
  const variable_list saved = ctx->get_saved_variables();
  const at::Tensor &x = saved[0], &u = saved[1];
  const bool wants_x = ctx->needs_input_grad(0);
  const at::ScalarType type = x.scalar_type();
  const at::Tensor rows = rows_of(x);
  std::size_t dora_output = 2;
  for (const Linear& layer : group.layers) dora_output += layer.adapter->is_dora() ? 3 : 2;

  variable_list result{at::Tensor()};
  at::Tensor grad_x, grad_u = at::zeros_like(u);
  std::vector<std::size_t> slot_of_a;
  std::int64_t column = 0;
  for (std::size_t i = 0; i < group.layers.size(); ++i) {
    const Linear& layer = group.layers[i];
    const LowRank& lora = *layer.adapter;
    const std::int64_t rank = lora.rank();
    slot_of_a.push_back(result.size());
    result.resize(result.size() + (lora.is_dora() ? 3 : 2));
    const at::Tensor y = lora.is_dora() ? saved[dora_output++] : at::Tensor();
    if (grads[i].defined()) {
      at::Tensor g = rows_of(grads[i]);
      if (lora.is_dora()) {
        result[slot_of_a[i] + 2] = magnitude_gradient(g, y, layer);
        g = g * (lora.magnitude.detach() * group.inverse_norms[i]).to(type);
      }
      const at::Tensor b = lora.b.detach().to(type);
      grad_u.narrow(1, column, rank).copy_(matmul_nn(g, b).mul_(lora.scale));
      result[slot_of_a[i] + 1] =
          gradient_product(g, u.narrow(1, column, rank), lora.b.scalar_type()).mul_(lora.scale);
      if (wants_x) add_base_gradient(layer, g, grad_x);
    }
    column += rank;
  }

  const at::Tensor seen = group.masked() ? keyed_dropout(rows, group.dropout, group.key) : rows;
  const at::Tensor grad_a =
      gradient_product(grad_u, seen, group.layers.front().adapter->a.scalar_type());
  column = 0;
  for (std::size_t i = 0; i < group.layers.size(); ++i) {
    const LowRank& lora = *group.layers[i].adapter;
    // A copy for all but a lone layer: a view would keep the other layers' gradients alive.
    const at::Tensor part = grad_a.narrow(0, column, lora.rank());
    result[slot_of_a[i]] = group.layers.size() == 1 ? grad_a : part.contiguous();
    column += lora.rank();
  }
  if (wants_x && grad_x.defined()) {
    const at::Tensor a = stacked_a(group, type).detach();
    if (group.masked())
      keyed_dropout_add_(grad_x, matmul_nn(grad_u, a), group.dropout, group.key);
    else
      grad_x.addmm_(grad_u, a);
    result[0] = grad_x.view(x.sizes());
  }
  result.emplace_back();  // of `group`
  return result;
}

bool needs_gradients(const at::Tensor& x, const std::vector<const Linear*>& layers) {
  if (!c10::GradMode::is_enabled()) return false;
  if (x.requires_grad()) return true;
  for (const Linear* layer : layers) {
    const LowRank& lora = *layer->adapter;
    if (needs_grad(lora.a, lora.b, lora.magnitude)) return true;
  }
  return false;
}

std::vector<at::Tensor> adapted_outputs(const at::Tensor& x,
                                        const std::vector<const Linear*>& layers) {
  c10::intrusive_ptr<Group> group;
  {
    const at::NoGradGuard no_grad;
    group = make_group(layers);
  }
  if (!needs_gradients(x, layers)) return compute(*group, x).y;
  std::vector<at::Tensor> parameters;
  for (const Linear* layer : layers) {
    parameters.push_back(layer->adapter->a);
    parameters.push_back(layer->adapter->b);
    if (layer->adapter->is_dora()) parameters.push_back(layer->adapter->magnitude);
  }
  return LowRankGroup::apply(x, at::TensorList(parameters), group);
}

}  // namespace

std::vector<at::Tensor> linear_group(const at::Tensor& x,
                                     const std::vector<const Linear*>& layers) {
  std::vector<const Linear*> adapted;
  for (const Linear* layer : layers) {
    if (layer->adapter != nullptr) adapted.push_back(layer);
  }
  if (adapted.empty()) {
    std::vector<at::Tensor> out;
    for (const Linear* layer : layers) out.push_back(layer->base(x));
    return out;
  }
  std::vector<at::Tensor> from_adapters = adapted_outputs(x, adapted), out;
  std::size_t next = 0;
  for (const Linear* layer : layers)
    out.push_back(layer->adapter ? std::move(from_adapters[next++]) : layer->base(x));
  return out;
}

}  // namespace espalier
