// See blockwise_backward.h.
#include "espalier/models/decoder/blockwise_backward.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/models/decoder/block_internal.h"

namespace espalier {
namespace {

void stop_if_asked(const StopToken& stop) {
  if (stop.stop_requested()) throw Interrupted{};
}

/// A block of leaves that share the memory of `block`'s tensors, and their list.
DecoderBlock make_leaves(const DecoderBlock& block, std::vector<BlockLeaf>& leaves) {
  DecoderBlock copy = block;  // handles only
  for_each_tensor(copy, "", [&](const std::string& name, at::Tensor& tensor) {
    tensor = tensor.detach().requires_grad_(true);
    leaves.push_back({name, tensor});
  });
  return copy;
}

}  // namespace

LayerGradients backward_through_layer(const Decoder& model, std::int64_t layer, const at::Tensor& h,
                                      const at::Tensor& gradient, const AttentionContext& context,
                                      const BlockwiseHooks& hooks, InputGradient input) {
  const c10::AutoGradMode with_grad(true);
  LayerGradients result;
  if (hooks.leaves) result.leaves = hooks.leaves(layer);
  at::Tensor start = h.detach();
  if (input == InputGradient::kYes) start.requires_grad_(true);
  at::Tensor out;
  if (hooks.run) {
    out = hooks.run(start, layer);
  } else if (hooks.leaves) {
    out = model.run_layer(start, layer, context);
  } else {
    const Decoder held = model.hold_layer(layer);
    const DecoderBlock block = make_leaves(held.block(0), result.leaves);
    out = run_block(block, held.config(), start, context, {});
  }
  std::vector<at::Tensor> variables;
  for (const BlockLeaf& leaf : result.leaves) variables.push_back(leaf.value);
  if (input == InputGradient::kYes) variables.push_back(start);
  if (variables.empty()) return result;
  ESPALIER_ASSERT(out.requires_grad());
  result.gradients = torch::autograd::grad({out}, variables, {gradient}, /*retain_graph=*/false,
                                           /*create_graph=*/false, /*allow_unused=*/true);
  if (input == InputGradient::kYes) {
    result.input = std::move(result.gradients.back());
    result.gradients.pop_back();
    ESPALIER_ASSERT(result.input.defined());  // the residual stream carries every gradient down
  }
  return result;
}

BlockwisePass::BlockwisePass(const Decoder& model, std::int64_t first, std::int64_t last,
                             AttentionContext context, BlockwiseHooks hooks)
    : model_(model),
      first_(first),
      last_(last),
      context_(std::move(context)),
      hooks_(std::move(hooks)) {
  ESPALIER_ASSERT(first >= 0 && first <= last && last <= model.num_layers());
  // Layers run in a way of their own have tensors that this class cannot know.
  ESPALIER_ASSERT(!hooks_.run || hooks_.leaves);
}

at::Tensor BlockwisePass::forward(at::Tensor h, const StopToken& stop) {
  const c10::NoGradGuard no_grad;
  inputs_.clear();
  for (std::int64_t layer = first_; layer < last_; ++layer) {
    stop_if_asked(stop);
    inputs_.push_back(h);
    h = hooks_.run ? hooks_.run(h, layer) : model_.run_layer(h, layer, context_);
  }
  return h;
}

at::Tensor BlockwisePass::backward(at::Tensor gradient, const Consumer& consumer,
                                   InputGradient input, const StopToken& stop) {
  ESPALIER_ASSERT(static_cast<std::int64_t>(inputs_.size()) == last_ - first_);
  for (std::int64_t layer = last_ - 1; layer >= first_; --layer) {
    stop_if_asked(stop);
    const at::Tensor h = std::move(inputs_.back());
    inputs_.pop_back();
    LayerGradients result = backward_through_layer(model_, layer, h, gradient, context_, hooks_,
                                                   layer > first_ ? InputGradient::kYes : input);
    gradient = std::move(result.input);
    if (!result.leaves.empty()) consumer(layer, result.leaves, result.gradients);
  }
  return gradient;
}

}  // namespace espalier
