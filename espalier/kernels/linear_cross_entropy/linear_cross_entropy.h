// Output head and cross-entropy in one op, in chunks of rows: the [tokens, vocabulary] logits are
// never whole in memory.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

namespace espalier {

/// `softcap` below: logits z become softcap * tanh(z / softcap) first, in float32 (gemma's
/// final_logit_softcapping, DecoderConfig::final_softcap); 0 leaves them.
///
/// Per-row negative log-likelihood of `targets` under softmax(hidden W^T + bias), float32.
/// `hidden` [rows, d], `weight` [vocab, d], `targets` [rows] int64 (-100 = ignored, gives 0). No
/// autograd. Rows are independent: the value of a row does not depend on the others
/// (batch-invariant). Memory O(chunk * vocab). `best`, when given: [rows] bool, whether no logit is
/// above the target's (false for ignored rows).
at::Tensor linear_nll(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                      const std::optional<at::Tensor>& bias = std::nullopt, double softcap = 0,
                      at::Tensor* best = nullptr);

/// Sum over unmasked rows of the same, times `scale`, differentiable in hidden and weight. Only
/// rows with targets != -100 are computed. The backward is computed with the forward, chunk by
/// chunk (grad buffers [rows, d] and [vocab, d] only), which is why `scale` (1 / number of unmasked
/// tokens of the whole batch) is an argument.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets, double scale, double softcap = 0);

/// Whether device_linear_cross_entropy can take this tensor.
bool has_device_loss(const at::Tensor& hidden);

/// The same sum on a CUDA device with nothing said to the host, for captured training steps.
/// `hidden` [n, d] float32 or bfloat16; `rows` [m] int64 on the device: the rows of `hidden` that
/// count, repeats allowed (undefined: all n); `targets` [m] int64 on the device, checked by the
/// caller, negative ones count nothing; `scale` one float32 on the device. Returns scale * sum of
/// NLL, float32. Differentiable in hidden and weight as the last op before the gradient: its
/// upstream gradient is taken to be 1. Logits are rounded to hidden's dtype. Memory: 0.5 to 1 GB of
/// logits at most, gradients as above.
at::Tensor device_linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                       const at::Tensor& rows, const at::Tensor& targets,
                                       const at::Tensor& scale);

/// The definitions, by at::cross_entropy_loss over whole logits in float64.
at::Tensor linear_nll_reference(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& targets);

}  // namespace espalier
