// Output head and cross-entropy in one op, in chunks of rows: the [tokens, vocabulary] logits are
// never whole in memory.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

namespace espalier {

/// Per-row negative log-likelihood of `targets` under softmax(hidden W^T + bias), float32.
/// `hidden` [rows, d], `weight` [vocab, d], `targets` [rows] int64 (-100 = ignored, gives 0). No
/// autograd. Rows are independent: the value of a row does not depend on the others
/// (batch-invariant). Memory O(chunk * vocab).
at::Tensor linear_nll(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                      const std::optional<at::Tensor>& bias = std::nullopt);

/// Sum over unmasked rows of the same, times `scale`, differentiable in hidden and weight. Only
/// rows with targets != -100 are computed. The backward is computed with the forward, chunk by
/// chunk (grad buffers [rows, d] and [vocab, d] only), which is why `scale` (1 / number of unmasked
/// tokens of the whole batch) is an argument.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets, double scale);

/// The definitions, by at::cross_entropy_loss over whole logits in float64.
at::Tensor linear_nll_reference(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets);

}  // namespace espalier
