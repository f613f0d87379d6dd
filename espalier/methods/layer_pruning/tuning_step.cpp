// See tuning_step.h.
#include "espalier/methods/layer_pruning/tuning_step.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/models/decoder/blockwise_backward.h"

namespace espalier::layer_pruning {
namespace {

/// Predicted positions of a batch are rounded up to this on CUDA: few shapes, few graphs.
constexpr std::int64_t kPredictedStep = 512;
/// Graphs kept; batches of further shapes run without.
constexpr std::size_t kMaxGraphs = 12;

/// Indices of predicted positions, padded with position 0 to a multiple of kPredictedStep, and
/// their targets, padded with -100. Undefined indices when nearly every position is predicted.
struct PredictedRows {
  at::Tensor rows, targets;
};

PredictedRows predicted_rows(const TuningBatch& batch) {
  const std::int64_t all = batch.targets.size(0);
  const std::int64_t padded =
      (batch.predicted + kPredictedStep - 1) / kPredictedStep * kPredictedStep;
  if (padded >= all) return {at::Tensor(), batch.targets};
  const at::Tensor keep = batch.targets.ne(kIgnoredLabel).nonzero().squeeze(1);
  PredictedRows out{at::zeros({padded}, at::kLong),
                    at::full({padded}, static_cast<std::int64_t>(kIgnoredLabel), at::kLong)};
  out.rows.narrow(0, 0, keep.size(0)).copy_(keep);
  out.targets.narrow(0, 0, keep.size(0)).copy_(batch.targets.index_select(0, keep));
  return out;
}

}  // namespace

/// Everything a step depends on that changes from batch to batch.
struct TuningStep::Inputs {
  at::Tensor ids;      // undefined when `prefix` is given
  at::Tensor prefix;   // undefined when it is computed
  at::Tensor rows;     // see PredictedRows; CUDA only
  at::Tensor targets;  // of `rows`, or of all positions
  at::Tensor scale;    // float32 scalar; on the CPU `scale_value` counts
  at::Tensor draw;     // int64 scalar
  double scale_value = 0;

  std::vector<at::Tensor> list() const { return {ids, prefix, rows, targets, scale, draw}; }
  static Inputs of(const std::vector<at::Tensor>& t) {
    return {t[0], t[1], t[2], t[3], t[4], t[5], 0};
  }
};

TuningStep::TuningStep(Decoder& model, const Trainable& trainable, const FinetuneOptions& options,
                       Reporter& reporter)
    : model_(model),
      trainable_(trainable),
      options_(options),
      device_loss_(has_device_loss(model.head_weight()) && model.config().final_softcap == 0),
      recorded_(model.device(), options.capture && device_loss_, kMaxGraphs, reporter) {
  for (const TrainedTensor& t : trainable.tensors) weights_.push_back(t.weight);
}

const AttentionContext& TuningStep::context_of(const TuningBatch& batch) {
  if (batch.packed) {
    packed_context_ = batch_context(model_, batch);
    return packed_context_;
  }
  const auto found = contexts_.find(batch.width());
  if (found != contexts_.end()) return found->second;
  return contexts_.emplace(batch.width(), batch_context(model_, batch)).first->second;
}

at::Tensor TuningStep::prefix(const TuningBatch& batch) {
  const at::NoGradGuard no_grad;
  return model_.run_layers(model_.embed(batch.ids.to(model_.device())), 0, trainable_.first_layer,
                           context_of(batch));
}

MicroGradients TuningStep::gradients(const TuningBatch& batch, double scale,
                                     const at::Tensor& prefix, std::int64_t draw) {
  Inputs inputs;
  if (prefix.defined())
    inputs.prefix = prefix;
  else
    inputs.ids = batch.ids;
  inputs.targets = batch.targets;
  inputs.scale_value = scale;
  inputs.scale = at::scalar_tensor(scale, at::kFloat);
  inputs.draw = at::scalar_tensor(draw, at::kLong);
  if (device_loss_) {
    const PredictedRows predicted = predicted_rows(batch);
    inputs.rows = predicted.rows;
    inputs.targets = predicted.targets;
  }
  const AttentionContext& context = context_of(batch);
  // A recording is of a loss that reads its scale from the device.
  const auto body = [&](const std::vector<at::Tensor>& t) {
    Inputs on_device = Inputs::of(t);
    on_device.scale_value = scale;
    return compute(on_device, context);
  };
  std::vector<at::Tensor> out = recorded_.run(body, inputs.list());
  MicroGradients result;
  result.loss = std::move(out.front());
  out.erase(out.begin());
  result.gradients = std::move(out);
  return result;
}

std::vector<at::Tensor> TuningStep::compute(const Inputs& inputs,
                                            const AttentionContext& context) const {
  if (trainable_.dropout) {
    trainable_.dropout->counter.copy_(inputs.draw);
    trainable_.dropout->active = true;
  }
  at::Tensor start = inputs.prefix;
  if (!start.defined()) {
    const c10::AutoGradMode mode(trainable_.embedding);
    start = model_.embed(inputs.ids);
    if (!trainable_.embedding) start = model_.run_layers(start, 0, trainable_.first_layer, context);
  }
  std::vector<at::Tensor> out = options_.gradient_checkpointing
                                    ? checkpointed(start, inputs, context)
                                    : plain(start, inputs, context);
  const at::NoGradGuard no_grad;
  for (at::Tensor& t : out) t = t.detach().to(at::kFloat);
  if (trainable_.dropout) trainable_.dropout->active = false;
  return out;
}

at::Tensor TuningStep::loss_of(const at::Tensor& h, const Inputs& inputs) const {
  const at::Tensor normed = model_.final_norm(h);
  const at::Tensor flat = normed.reshape({-1, normed.size(-1)});
  if (device_loss_) {
    return device_linear_cross_entropy(flat, model_.head_weight(), inputs.rows, inputs.targets,
                                       inputs.scale);
  }
  ESPALIER_ASSERT(!inputs.rows.defined());
  return linear_cross_entropy(flat, model_.head_weight(), inputs.targets, inputs.scale_value,
                              model_.config().final_softcap);
}

/// Loss and gradients of the trained tensors, through one graph.
std::vector<at::Tensor> TuningStep::plain(const at::Tensor& start, const Inputs& inputs,
                                          const AttentionContext& context) const {
  const at::Tensor h =
      model_.run_layers(start, trainable_.first_layer, model_.num_layers(), context);
  at::Tensor loss = loss_of(h, inputs);
  std::vector<at::Tensor> out = torch::autograd::grad({loss}, weights_);
  out.insert(out.begin(), loss);
  return out;
}

/// The same, with every layer run again in the backward pass.
std::vector<at::Tensor> TuningStep::checkpointed(const at::Tensor& start, const Inputs& inputs,
                                                 const AttentionContext& context) const {
  std::vector<at::Tensor> out(weights_.size() + 1);
  BlockwiseHooks hooks;
  hooks.leaves = [&](std::int64_t layer) {
    std::vector<BlockLeaf> leaves;
    for (std::size_t i = 0; i < weights_.size(); ++i)
      if (trainable_.layers[i] == layer) leaves.push_back({std::to_string(i), weights_[i]});
    return leaves;
  };
  BlockwisePass pass(model_, trainable_.first_layer, model_.num_layers(), context, hooks);
  const at::Tensor top = pass.forward(start.detach()).detach().requires_grad_(true);
  const c10::AutoGradMode with_grad(true);
  const at::Tensor loss = loss_of(top, inputs);
  std::vector<at::Tensor> variables{top};
  std::vector<std::size_t> slots;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    if (trainable_.layers[i] >= 0) continue;
    variables.push_back(weights_[i]);
    slots.push_back(i);
  }
  std::vector<at::Tensor> outer =
      torch::autograd::grad({loss}, variables, {}, /*retain_graph=*/false, /*create_graph=*/false,
                            /*allow_unused=*/true);
  out[0] = loss;
  for (std::size_t i = 0; i < slots.size(); ++i) out[slots[i] + 1] = outer[i + 1];
  const at::Tensor bottom = pass.backward(
      outer[0],
      [&](std::int64_t, const std::vector<BlockLeaf>& leaves, std::vector<at::Tensor>& gradients) {
        for (std::size_t i = 0; i < leaves.size(); ++i)
          out[static_cast<std::size_t>(std::stoul(leaves[i].name)) + 1] = gradients[i];
      },
      trainable_.embedding ? InputGradient::kYes : InputGradient::kNo);
  if (trainable_.embedding) {
    // A tied embedding has a second gradient, from the head.
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      if (trainable_.tensors[i].name != "model.embed_tokens.weight") continue;
      const at::Tensor g = torch::autograd::grad({start}, {weights_[i]}, {bottom}).front();
      out[i + 1] = out[i + 1].defined() ? out[i + 1] + g : g;
    }
  }
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    if (!out[i + 1].defined()) out[i + 1] = at::zeros_like(weights_[i]);
  }
  return out;
}

}  // namespace espalier::layer_pruning
