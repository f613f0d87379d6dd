// The step of a classifier: rows to pixels to loss to gradients, all on the device; train_loop.h
// adds the update and records the whole.
#include "espalier/train/classifier.h"

#include <algorithm>
#include <memory>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/data/row_order.h"
#include "espalier/nn/low_rank.h"
#include "espalier/tensor/tensor_view.h"

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

/// Tensors of the net that train, as leaves in it. With bfloat16 activations the matrices are
/// bfloat16 copies of float32 masters: one pass casts all of them after a step, in place of one
/// cast each per use.
std::vector<TrainedTensor> make_leaves(Cnn& net, at::ScalarType type) {
  std::vector<TrainedTensor> leaves;
  for_each_parameter(net, [&](const std::string& name, at::Tensor& slot) {
    ESPALIER_ASSERT(slot.scalar_type() == at::kFloat);
    const at::Tensor full = slot;
    if (slot.dim() > 1) slot = slot.to(type);
    leaves.push_back(make_trained(name, slot, full));
  });
  return leaves;
}

/// The masters in place of the leaves.
void end_training(Cnn& net, const std::vector<TrainedTensor>& leaves) {
  freeze(leaves);
  std::size_t i = 0;
  for_each_parameter(net, [&](const std::string& name, at::Tensor& slot) {
    ESPALIER_ASSERT(leaves[i].name == name);
    slot = leaves[i++].master;
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

class ClassifierStep {
 public:
  ClassifierStep(const Cnn& net, const ImageSet& images, const ClassifierOptions& options,
                 const std::vector<TrainedTensor>& leaves, std::shared_ptr<DropoutState> dropout)
      : net_(net),
        options_(options),
        order_(images.size(), options.batch_size, options.seed),
        dropout_(std::move(dropout)) {
    const at::Device device = net.device();
    const auto bytes = static_cast<std::int64_t>(images.pixels.nbytes());
    resident_ = device.is_cpu() || bytes <= free_device_bytes(device) / kPixelShare;
    pixels_ = resident_ ? images.pixels.to(device) : images.pixels;
    labels_ = resident_ ? images.labels.to(device) : images.labels;
    for (const TrainedTensor& leaf : leaves) weights_.push_back(leaf.weight);
  }

  /// Rows (or, where pixels do not lie on the device, pixels), labels in the second case, draws of
  /// the augmentation, number of the dropout masks.
  std::vector<at::Tensor> inputs(std::int64_t step) {
    const std::vector<std::int64_t> rows = order_.batch(step);
    const at::Tensor indices = at::tensor(rows, at::kLong);
    return {resident_ ? indices : pixels_.index_select(0, indices),
            resident_ ? at::Tensor() : labels_.index_select(0, indices),
            augment_draws(options_.augment, options_.seed, order_.epoch_of(step), rows),
            at::scalar_tensor(step, at::kLong)};
  }

  std::vector<at::Tensor> loss_and_gradients(const std::vector<at::Tensor>& inputs) const;

 private:
  const Cnn& net_;
  const ClassifierOptions& options_;
  RowOrder order_;
  std::vector<at::Tensor> weights_;
  std::shared_ptr<DropoutState> dropout_;
  bool resident_ = false;
  at::Tensor pixels_, labels_;
};

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
  std::vector<at::Tensor> out = torch::autograd::grad({loss}, weights_);
  if (dropout_) dropout_->active = false;
  widen(out);
  out.insert(out.begin(), loss.detach());
  return out;
}

Schedule schedule_of(const ClassifierOptions& options, std::int64_t steps_per_epoch) {
  Schedule schedule{options.lr, options.warmup_epochs * steps_per_epoch,
                    options.epochs * steps_per_epoch, options.decay, options.floor};
  if (options.per_epoch) schedule.granularity = steps_per_epoch;
  for (const std::int64_t epoch : options.milestones)
    schedule.milestones.push_back(epoch * steps_per_epoch);
  schedule.gamma = options.gamma;
  return schedule;
}

void check_images(const Cnn& net, const ImageSet& images) {
  const CnnConfig& config = net.config();
  if (images.channels() != config.in_channels) {
    throw Error(
        ErrorKind::kInput, "images",
        format("have {} channels, but the net takes {}", images.channels(), config.in_channels));
  }
  if (static_cast<std::int64_t>(images.classes.size()) > config.num_classes) {
    throw Error(ErrorKind::kInput, "images",
                format("have {} classes, but the net has {} outputs", images.classes.size(),
                       config.num_classes));
  }
}

}  // namespace

std::int64_t classifier_steps(const ImageSet& images, const ClassifierOptions& options) {
  return options.epochs * RowOrder(images.size(), options.batch_size, 0).steps_per_epoch();
}

at::Tensor classification_loss(const at::Tensor& logits, const at::Tensor& labels,
                               double smoothing) {
  return at::cross_entropy_loss(logits.to(at::kFloat), labels, {}, at::Reduction::Mean, -100,
                                smoothing);
}

TrainResult train_classifier(Cnn& net, const ImageSet& images, const ClassifierOptions& options,
                             RunFolder& run, Reporter& reporter, const StopToken& stop) {
  check_images(net, images);
  net =
      net.to(net.device(), at::kFloat,
             options.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous)
          .clone();  // statistics change in place, and another net may share them
  const std::vector<TrainedTensor> leaves = make_leaves(net, options.type);
  std::shared_ptr<DropoutState> dropout;
  if (net.config().family == CnnFamily::kVgg) {
    dropout = std::make_shared<DropoutState>();
    dropout->seed = options.seed;
    dropout->counter = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(net.device()));
    net.set_dropout(dropout);
  }
  if (net.device().is_cuda()) at::globalContext().setBenchmarkCuDNN(true);
  ClassifierStep step(net, images, options, leaves, dropout);
  const std::int64_t per_epoch = classifier_steps(images, options) / options.epochs;

  TrainOptions loop;
  loop.schedule = schedule_of(options, per_epoch);
  loop.optimizer = options.optimizer;
  loop.clip = options.clip;
  loop.checkpoint_every = options.checkpoint_epochs * per_epoch;
  loop.must_match = options.must_match;
  loop.may_change = options.may_change;
  for (const NamedTensor& buffer : net.buffers())
    loop.buffers.emplace_back(buffer.name, buffer.tensor);
  loop.ema = options.ema;
  if (options.evaluate) loop.evaluate = [&] { return options.evaluate(net); };
  loop.evaluate_every = options.evaluate_epochs * per_epoch;
  loop.keep_best = options.keep_best;
  loop.unit = "images";
  const DeviceStep device_step{
      .inputs = [&](std::int64_t number) { return step.inputs(number); },
      .loss_and_gradients = [&](const auto& inputs) { return step.loss_and_gradients(inputs); },
      .record = options.capture};
  TrainResult result = train(leaves, device_step, loop, run, reporter, stop);
  end_training(net, leaves);
  net.set_dropout(nullptr);
  return result;
}

}  // namespace espalier
