// The step of a classifier: rows to pixels to loss to gradients, all on the device; train_loop.h
// adds the update and records the whole.
#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/tensor/tensor_view.h"
#include "espalier/train/classifier_step_internal.h"

namespace espalier {
namespace {

constexpr std::int64_t kPixelShare = 4;  // pixels of up to 1/4 of a device's free memory lie there

/// Calls fn(name, slot) for every trained tensor of the net.
template <class Fn>
void for_each_parameter(Cnn& net, Fn fn) {
  std::vector<std::string> names;
  for (const NamedTensor& parameter : net.parameters()) names.push_back(parameter.name);
  for_each_tensor(net, "", [&](const std::string& name, at::Tensor& tensor) {
    if (std::ranges::find(names, name) != names.end()) fn(name, tensor);
  });
}

/// bfloat16 gradients become float32, all in one pass.
void widen(std::vector<at::Tensor>& gradients) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> narrow, wide;
  for (at::Tensor& g : gradients) {
    if (g.scalar_type() == at::kFloat) continue;
    narrow.push_back(g);
    g = at::empty_like(g, at::kFloat);
    wide.push_back(g);
  }
  if (!wide.empty()) at::_foreach_copy_(wide, narrow);
}

}  // namespace

TrainedNet begin_training(Cnn& net, const ClassifierOptions& options) {
  const auto format =
      options.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  // Copies: statistics change in place, and another net may share them.
  net = net.to(net.device(), at::kFloat, format).clone();
  TrainedNet trained{net, {}, nullptr};
  for_each_parameter(net, [&](const std::string& name, at::Tensor& slot) {
    const at::Tensor full = slot;
    if (slot.dim() > 1) slot = slot.to(options.type);
    trained.leaves.push_back(make_trained(name, slot, full));
  });
  if (net.config().family == CnnFamily::kVgg) {
    trained.dropout = std::make_shared<DropoutState>();
    trained.dropout->seed = options.seed;
    trained.dropout->counter =
        at::zeros({}, at::TensorOptions().dtype(at::kLong).device(net.device()));
    net.set_dropout(trained.dropout);
  }
  return trained;
}

void end_training(const TrainedNet& trained) {
  freeze(trained.leaves);
  std::size_t i = 0;
  for_each_parameter(trained.net, [&](const std::string& name, at::Tensor& slot) {
    ESPALIER_ASSERT(trained.leaves[i].name == name);
    slot = trained.leaves[i++].master;
  });
  trained.net.set_dropout(nullptr);
}

ClassifierStep::ClassifierStep(const TrainedNet& trained, const ImageSet& images,
                               const ClassifierOptions& options)
    : net_(trained.net),
      options_(options),
      order_(images.size(), options.batch_size, options.seed),
      dropout_(trained.dropout) {
  const at::Device device = net_.device();
  const auto bytes = static_cast<std::int64_t>(images.pixels.nbytes());
  resident_ = device.is_cpu() || bytes <= free_device_bytes(device) / kPixelShare;
  pixels_ = resident_ ? images.pixels.to(device) : images.pixels;
  labels_ = resident_ ? images.labels.to(device) : images.labels;
  for (const TrainedTensor& leaf : trained.leaves) weights_.push_back(leaf.weight);
}

std::vector<at::Tensor> ClassifierStep::inputs(std::int64_t step) {
  const std::vector<std::int64_t> rows = order_.batch(step);
  const at::Tensor indices = at::tensor(rows, at::kLong);
  return {resident_ ? indices : pixels_.index_select(0, indices),
          resident_ ? at::Tensor() : labels_.index_select(0, indices),
          augment_draws(options_.augment, options_.seed, order_.epoch_of(step), rows),
          at::scalar_tensor(step, at::kLong)};
}

std::vector<at::Tensor> ClassifierStep::loss_and_gradients(
    const std::vector<at::Tensor>& inputs) const {
  at::Tensor x, labels;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor batch = resident_ ? pixels_.index_select(0, inputs[0]) : inputs[0];
    labels = resident_ ? labels_.index_select(0, inputs[0]) : inputs[1];
    x = normalise(apply_augment(batch, inputs[2], options_.augment), net_.config().mean,
                  net_.config().std, options_.type);
    if (options_.channels_last) x = x.contiguous(at::MemoryFormat::ChannelsLast);
    if (dropout_) {
      dropout_->counter.copy_(inputs[3]);
      dropout_->active = true;
    }
  }
  const c10::AutoGradMode with_grad(true);
  const at::Tensor loss =
      classification_loss(net_.forward(x, NormMode::kBatch), labels, options_.label_smoothing);
  // A cell's edge into a node that nobody reads has no gradient: torch's nets see zeros there.
  std::vector<at::Tensor> out =
      torch::autograd::grad({loss}, weights_, {}, /*retain_graph=*/std::nullopt,
                            /*create_graph=*/false, /*allow_unused=*/true);
  for (std::size_t i = 0; i < out.size(); ++i)
    if (!out[i].defined()) out[i] = at::zeros_like(weights_[i]);
  if (dropout_) dropout_->active = false;
  widen(out);
  out.insert(out.begin(), loss.detach());
  return out;
}

}  // namespace espalier
