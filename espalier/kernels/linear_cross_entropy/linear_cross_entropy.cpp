// See linear_cross_entropy.h.
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <torch/csrc/autograd/custom_function.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/matmul/matmul.h"

namespace espalier {
namespace {

constexpr std::int64_t kIgnored = -100;
constexpr std::int64_t kRows = 128;  // rows of logits alive at a time: 25 MB for a vocabulary of 49k

void check(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets) {
  ESPALIER_ASSERT(hidden.dim() == 2 && weight.dim() == 2 && targets.dim() == 1);
  ESPALIER_ASSERT(hidden.size(0) == targets.size(0) && hidden.size(1) == weight.size(1) && targets.scalar_type() == at::kLong);
}

/// Indices of rows that count. Throws Error(kInput) for a target outside the vocabulary.
at::Tensor unmasked_rows(const at::Tensor& targets, std::int64_t vocab) {
  const at::Tensor keep = targets.ne(kIgnored);
  const at::Tensor bad = keep.logical_and(targets.lt(0).logical_or(targets.ge(vocab)));
  if (bad.any().item<bool>()) {
    throw Error(ErrorKind::kInput, "targets", format("token id {} is outside the vocabulary of {}", targets.masked_select(bad)[0].item<std::int64_t>(), vocab));
  }
  return keep.nonzero().squeeze(1);
}

struct Chunk {
  at::Tensor logits;  // [rows, vocab] float32
  at::Tensor nll;     // [rows] float32
  at::Tensor lse;     // [rows] float32
};

Chunk chunk_nll(const at::Tensor& hidden, const at::Tensor& weight, const std::optional<at::Tensor>& bias, const at::Tensor& targets) {
  Chunk chunk;
  chunk.logits = matmul_nt(hidden, weight, bias).to(at::kFloat);
  chunk.lse = at::logsumexp(chunk.logits, {1});
  chunk.nll = chunk.lse - chunk.logits.gather(1, targets.unsqueeze(1)).squeeze(1);
  return chunk;
}

class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                            double scale) {
    const at::Tensor rows = unmasked_rows(targets, weight.size(0));
    const at::Tensor h = hidden.index_select(0, rows), t = targets.index_select(0, rows);
    const std::int64_t count = rows.size(0);
    at::Tensor grad_rows = at::empty_like(h);
    at::Tensor grad_weight = at::zeros(weight.sizes(), weight.options().dtype(at::kFloat));
    at::Tensor total = at::zeros({}, hidden.options().dtype(at::kDouble));
    for (std::int64_t first = 0; first < count; first += kRows) {
      const std::int64_t n = std::min(kRows, count - first);
      const at::Tensor part = h.narrow(0, first, n), target = t.narrow(0, first, n);
      Chunk chunk = chunk_nll(part, weight, std::nullopt, target);
      total += chunk.nll.sum(at::kDouble);
      at::Tensor grad = chunk.logits.sub_(chunk.lse.unsqueeze(1)).exp_();  // softmax
      grad.scatter_add_(1, target.unsqueeze(1), at::full({n, 1}, -1.0, grad.options()));
      grad.mul_(scale);
      const at::Tensor narrow_grad = grad.to(weight.scalar_type());
      grad_rows.narrow(0, first, n).copy_(at::matmul(narrow_grad, weight));
      if (weight.scalar_type() == at::kFloat) grad_weight.addmm_(grad.t(), part);
      else grad_weight.add_(at::matmul(narrow_grad.t(), part));
    }
    at::Tensor grad_hidden = at::zeros_like(hidden);
    grad_hidden.index_copy_(0, rows, grad_rows);
    ctx->save_for_backward({grad_hidden, grad_weight.to(weight.scalar_type())});
    return (total * scale).to(at::kFloat);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {saved[0] * grads[0].to(saved[0].scalar_type()), saved[1] * grads[0].to(saved[1].scalar_type()), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor linear_nll(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets, const std::optional<at::Tensor>& bias) {
  check(hidden, weight, targets);
  c10::NoGradGuard no_grad;
  const at::Tensor rows = unmasked_rows(targets, weight.size(0));
  at::Tensor out = at::zeros({targets.size(0)}, hidden.options().dtype(at::kFloat));
  const bool all = rows.size(0) == targets.size(0);
  const at::Tensor h = all ? hidden : hidden.index_select(0, rows), t = all ? targets : targets.index_select(0, rows);
  at::Tensor nll = at::empty({rows.size(0)}, out.options());
  for (std::int64_t first = 0; first < rows.size(0); first += kRows) {
    const std::int64_t n = std::min(kRows, rows.size(0) - first);
    nll.narrow(0, first, n).copy_(chunk_nll(h.narrow(0, first, n), weight, bias, t.narrow(0, first, n)).nll);
  }
  return all ? nll : out.index_copy_(0, rows, nll);
}

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets, double scale) {
  check(hidden, weight, targets);
  return LinearCrossEntropy::apply(hidden, weight, targets, scale);
}

at::Tensor linear_nll_reference(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets) {
  const at::Tensor logits = at::matmul(hidden.to(at::kDouble), weight.to(at::kDouble).t());
  return at::cross_entropy_loss(logits, targets, {}, at::Reduction::None, kIgnored).to(at::kFloat);
}

}  // namespace espalier
