// Gradients of a decoder with the memory of one block: the forward keeps only what enters each
// layer, the backward runs layer after layer again and hands its gradients out at once. For scores
// that need one backward pass over the whole model, and for gradient checkpointing while training.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier {

/// A tensor that the gradient of one layer is wanted for.
struct BlockLeaf {
  std::string name;  // as the caller likes; inside the block by default: "self_attn.q_proj.weight"
  at::Tensor value;  // a leaf with requires_grad
};

/// How a BlockwisePass differs from running the plain layers of the model; every field may be
/// empty.
struct BlockwiseHooks {
  /// h [batch, tokens, d] -> [batch, tokens, d] through `layer`; default Decoder::run_layer. Runs
  /// twice per layer, first without autograd, and must give the same values both times (draw
  /// dropout from the layer's and the step's number).
  std::function<at::Tensor(const at::Tensor& h, std::int64_t layer)> run;
  /// What the gradients of `layer` are wanted for; none is fine. Default: every tensor of the
  /// block, norms and biases included, in the order of `visit`; the model's tensors stay without
  /// requires_grad, and streamed models work.
  std::function<std::vector<BlockLeaf>(std::int64_t layer)> leaves;
};

enum class InputGradient : std::uint8_t { kYes, kNo };

/// One layer: run again from its input `h`, then back from the gradient of the loss in its output.
struct LayerGradients {
  std::vector<BlockLeaf> leaves;
  std::vector<at::Tensor> gradients;  // as `leaves`; undefined when the layer does not depend on it
  at::Tensor input;                   // in h; undefined with InputGradient::kNo
};
/// `layer` of `model`; for a layer that runs over several parts of a batch give
/// model.hold_layer(layer) and 0, so that a streamed one is read once.
LayerGradients backward_through_layer(const Decoder& model, std::int64_t layer, const at::Tensor& h,
                                      const at::Tensor& gradient, const AttentionContext& context,
                                      const BlockwiseHooks& hooks = {},
                                      InputGradient input = InputGradient::kYes);

/// One forward and one backward through layers [first, last) of a model.
///
///   BlockwisePass pass(model, 0, model.num_layers(), context);
///   at::Tensor h = pass.forward(model.embed(ids));            // no graph
///   ... loss of h.detach().requires_grad_(), its gradient `g` in h ...
///   g = pass.backward(g, [&](std::int64_t layer, const auto& leaves, const auto& gradients)
///   {...});
///
/// Memory besides the model: one [batch, tokens, d] per layer, and in the backward the activations
/// and gradients of one block. Time: two forwards and one backward; a streamed model is read twice.
/// Gradients are those of one autograd graph over all layers up to the order of additions; two
/// passes over the same numbers give the same bits where the kernels do.
class BlockwisePass {
 public:
  /// `gradients[i]` belongs to `leaves[i]`; undefined when the layer does not depend on it. They
  /// are the consumer's to keep or drop: nothing else holds them.
  using Consumer = std::function<void(std::int64_t layer, const std::vector<BlockLeaf>& leaves,
                                      std::vector<at::Tensor>& gradients)>;

  /// `model` must outlive this object; `context` fits the h given to forward.
  BlockwisePass(const Decoder& model, std::int64_t first, std::int64_t last,
                AttentionContext context, BlockwiseHooks hooks = {});

  /// Runs the layers without autograd, keeping each input. Returns the raw residual stream.
  /// Interrupted after a stop request.
  at::Tensor forward(at::Tensor h, const StopToken& stop = never_stop());

  /// Last layer first: runs the layer again from its kept input, calls `consumer`, forgets the
  /// input. `gradient`: of the loss in what forward returned. Returns the gradient in forward's
  /// input, undefined with kNo. Each forward serves one backward.
  at::Tensor backward(at::Tensor gradient, const Consumer& consumer,
                      InputGradient input = InputGradient::kYes,
                      const StopToken& stop = never_stop());

 private:
  const Decoder& model_;
  std::int64_t first_ = 0, last_ = 0;
  AttentionContext context_;
  BlockwiseHooks hooks_;
  std::vector<at::Tensor> inputs_;  // of layers first_ ..., as long as they are needed
};

}  // namespace espalier
