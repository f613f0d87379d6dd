// linear_cross_entropy: forward and backward together, chunk by chunk of rows.
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/kernels/linear_cross_entropy/rows_internal.h"
#include "espalier/kernels/matmul/matmul.h"

namespace espalier {
namespace {

// All logits of a chunk of kChunkRows rows are alive between the softmax and its gradient, 100 MB
// for a vocabulary of 49k, in tiles of this many columns. Fewer rows would read and write the
// weight's gradient more often.
constexpr std::int64_t kColumns = 4096;

struct Gradients {
  at::Tensor hidden;  // [rows, d], undefined when not wanted
  at::Tensor weight;  // [vocab, d] float32, undefined when not wanted
};

/// Adds one chunk's gradients; returns its sum of losses (float64 scalar).
at::Tensor add_chunk(const at::Tensor& h, const at::Tensor& weight, const at::Tensor& targets,
                     double scale, double softcap, const at::Tensor& grad_h, Gradients& grads) {
  const std::int64_t vocab = weight.size(0);
  RowSoftmax softmax(targets, h.device());
  std::vector<at::Tensor> tiles;
  for (std::int64_t column = 0; column < vocab; column += kColumns) {
    const at::Tensor logits =
        matmul_nt(h, weight.narrow(0, column, std::min(kColumns, vocab - column)));
    tiles.push_back(capped(logits, softcap).contiguous());
    softmax.add(tiles.back(), column);
  }
  const at::Tensor lse = softmax.log_sum_exp();
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const std::int64_t column = static_cast<std::int64_t>(i) * kColumns, columns = tiles[i].size(1);
    // d capped / d logit = 1 - tanh^2, taken before the gradient overwrites the tile.
    const at::Tensor slope = softcap > 0 ? 1 - (tiles[i] / softcap).square() : at::Tensor();
    softmax_gradient_(tiles[i], lse, targets, column, scale);
    if (slope.defined()) tiles[i].mul_(slope);
    const at::Tensor g = tiles[i].to(weight.scalar_type());
    if (grad_h.defined()) grad_h.add_(matmul_nn(g, weight.narrow(0, column, columns)));
    if (grads.weight.defined()) grads.weight.narrow(0, column, columns).add_(matmul_tn(g, h));
    tiles[i].reset();
  }
  return softmax.nll().sum(at::kDouble);
}

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& targets, double scale,
                            double softcap) {
    const at::Tensor rows = unmasked_rows(targets, weight.size(0)).to(hidden.device());
    const at::Tensor h = hidden.index_select(0, rows),
                     t = targets.to(hidden.device()).index_select(0, rows);
    Gradients grads;
    const auto wide = [](const at::Tensor& like) { return like.options().dtype(at::kFloat); };
    at::Tensor grad_rows;
    if (hidden.requires_grad()) grad_rows = at::zeros(h.sizes(), wide(h));
    if (weight.requires_grad()) grads.weight = at::zeros(weight.sizes(), wide(weight));
    at::Tensor total = at::zeros({}, hidden.options().dtype(at::kDouble));
    std::int64_t count = 0;
    for (std::int64_t first = 0; first < rows.size(0); first += count) {
      count = chunk_rows(rows.size(0) - first);
      const at::Tensor grad_part =
          grad_rows.defined() ? grad_rows.narrow(0, first, count) : at::Tensor();
      total += add_chunk(h.narrow(0, first, count), weight, t.narrow(0, first, count), scale,
                         softcap, grad_part, grads);
    }
    if (grad_rows.defined()) {
      grads.hidden =
          at::zeros_like(hidden).index_copy_(0, rows, grad_rows.to(hidden.scalar_type()));
    }
    if (grads.weight.defined()) grads.weight = grads.weight.to(weight.scalar_type());
    ctx->save_for_backward({grads.hidden, grads.weight});
    return (total * scale).to(at::kFloat);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& upstream) {
    const auto saved = ctx->get_saved_variables();
    // loss.backward() hands down exactly 1: the gradients then go on as they are, without a copy of
    // [vocab, d].
    if (upstream[0].device().is_cpu() && upstream[0].item<float>() == 1.0f)
      return {saved[0], saved[1], at::Tensor(), at::Tensor(), at::Tensor()};
    const auto scaled = [&](const at::Tensor& grad) {
      return grad.defined() ? grad * upstream[0].to(grad.scalar_type()) : at::Tensor();
    };
    return {scaled(saved[0]), scaled(saved[1]), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets, double scale, double softcap) {
  ESPALIER_ASSERT(hidden.dim() == 2 && weight.dim() == 2 && targets.dim() == 1 &&
                  targets.scalar_type() == at::kLong);
  ESPALIER_ASSERT(hidden.size(0) == targets.size(0) && hidden.size(1) == weight.size(1));
  if (!needs_grad(hidden, weight))
    return (linear_nll(hidden, weight, targets, std::nullopt, softcap).sum(at::kDouble) * scale)
        .to(at::kFloat);
  return LinearCrossEntropy::apply(hidden, weight, targets, scale, softcap);
}

}  // namespace espalier
