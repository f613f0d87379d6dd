// Taylor and GradNorm: layer scores from one backward pass, block by block, with the memory of the
// model and one block's gradients (spec 2.2, 4.3).
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

struct GradientScoreOptions {
  std::int64_t batch = 10;        // sequences per batch: each batch's loss is a mean of its own
  bool taylor_per_batch = false;  // see GradientScores::taylor
};

struct GradientScores {
  /// Sum over the layer's weights of |w * sum over batches of dLoss/dw| (signed sum, first order,
  /// norm weights included, biases not). With taylor_per_batch the sum over batches of
  /// |w * dLoss/dw|: a larger number whose memory does not grow with the number of batches.
  std::vector<double> taylor;
  /// Mean over batches of sqrt(sum (dLoss/dw)^2) over all tensors of the layer.
  std::vector<double> gradnorm;
  double loss = 0;  // mean next-token loss of all tokens, nats
};

/// ids [samples, tokens >= 2] int64. The loss of a batch is the mean next-token cross-entropy of
/// its sequences.
///
/// Batches go through the layers together, so that the signed sum needs the gradients of one layer
/// at a time and no second model. Memory besides the model: the gradients of one block (twice that
/// when a batch is cut to bound activations, three times with several batches), and every layer's
/// input, L samples tokens d of the compute dtype (of one batch with taylor_per_batch). Works on
/// streamed models, whose weights are read twice (per batch with taylor_per_batch). Sums in
/// float64. Throws Error(kInput) when the loss is not finite; Interrupted after a stop request.
/// Source: LLM-Pruner and Shortened LLaMA (taylor), SGLP (gradnorm).
GradientScores gradient_scores(const Decoder& model, const at::Tensor& ids,
                               const GradientScoreOptions& options, Reporter& reporter,
                               const StopToken& stop = never_stop());

}  // namespace espalier::layer_pruning
