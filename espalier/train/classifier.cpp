// The step of a classifier: pixels to loss to gradients, recorded as a graph where that is
// possible.
#include "espalier/train/classifier.h"

#include <algorithm>
#include <memory>
#include <optional>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/data/row_order.h"
#include "espalier/nn/low_rank.h"
#include "espalier/tensor/tensor_view.h"
#include "espalier/train/captured_step.h"

namespace espalier {
namespace {

constexpr std::int64_t kPixelShare = 4;  // pixels of up to 1/4 of a device's free memory lie there

/// Tensors of the net that train, as leaves in it.
std::vector<TrainedTensor> make_leaves(Cnn& net) {
  std::vector<std::string> names;
  for (const NamedTensor& parameter : net.parameters()) names.push_back(parameter.name);
  std::vector<TrainedTensor> leaves;
  for_each_tensor(net, "", [&](const std::string& name, at::Tensor& tensor) {
    if (std::ranges::find(names, name) == names.end()) return;
    ESPALIER_ASSERT(tensor.scalar_type() == at::kFloat);
    leaves.push_back(make_trained(name, tensor));
  });
  return leaves;
}

class ClassifierStep {
 public:
  ClassifierStep(const Cnn& net, const ImageSet& images, const ClassifierOptions& options,
                 std::vector<at::Tensor> weights, std::shared_ptr<DropoutState> dropout,
                 Reporter& reporter)
      : net_(net),
        options_(options),
        device_(net.device()),
        order_(images.size(), options.batch_size, options.seed),
        weights_(std::move(weights)),
        dropout_(std::move(dropout)),
        reporter_(reporter) {
    const auto bytes = static_cast<std::int64_t>(images.pixels.nbytes());
    resident_ = device_.is_cpu() || bytes <= free_device_bytes(device_) / kPixelShare;
    pixels_ = resident_ ? images.pixels.to(device_) : images.pixels;
    labels_ = resident_ ? images.labels.to(device_) : images.labels;
    if (options.capture && can_capture(device_)) pool_.emplace();
  }

  StepGradients gradients(std::int64_t step) {
    const std::vector<std::int64_t> rows = order_.batch(step);
    const at::Tensor indices = at::tensor(rows, at::kLong);
    std::vector<at::Tensor> inputs{
        resident_ ? indices : pixels_.index_select(0, indices),
        resident_ ? at::Tensor() : labels_.index_select(0, indices),
        augment_draws(options_.augment, options_.seed, order_.epoch_of(step), rows),
        at::scalar_tensor(step, at::kLong)};
    std::vector<at::Tensor> out = run(inputs, static_cast<std::int64_t>(rows.size()));
    StepGradients result;
    result.loss = out.front().item<double>();
    result.tokens = static_cast<std::int64_t>(rows.size());
    result.gradients.assign(std::make_move_iterator(out.begin() + 1),
                            std::make_move_iterator(out.end()));
    return result;
  }

 private:
  std::vector<at::Tensor> run(std::vector<at::Tensor>& inputs, std::int64_t rows);
  std::vector<at::Tensor> compute(const std::vector<at::Tensor>& inputs) const;

  const Cnn& net_;
  const ClassifierOptions& options_;
  at::Device device_;
  RowOrder order_;
  std::vector<at::Tensor> weights_;
  std::shared_ptr<DropoutState> dropout_;
  Reporter& reporter_;
  bool resident_ = false;
  at::Tensor pixels_, labels_;
  std::optional<CapturePool> pool_;       // none: steps are not recorded
  std::optional<CapturedStep> recorded_;  // of whole batches
  bool warm_ = false;                     // a whole batch has run
};

std::vector<at::Tensor> ClassifierStep::run(std::vector<at::Tensor>& inputs, std::int64_t rows) {
  const auto eager = [&] {
    for (at::Tensor& t : inputs)
      if (t.defined()) t = t.to(device_);
    return compute(inputs);
  };
  if (!pool_ || rows != options_.batch_size) return eager();
  // The first run loads kernels and lets cuDNN choose among them, which a recording cannot.
  if (!warm_) {
    warm_ = true;
    return eager();
  }
  if (!recorded_) {
    try {
      recorded_.emplace([this](const std::vector<at::Tensor>& t) { return compute(t); }, inputs,
                        device_, *pool_);
    } catch (const std::exception& e) {
      pool_.reset();
      reporter_.warn(format("the step cannot be captured as a CUDA graph and runs without: {}",
                            std::string(e.what()).substr(0, 200)));
      return eager();
    }
  }
  return recorded_->replay(inputs);
}

std::vector<at::Tensor> ClassifierStep::compute(const std::vector<at::Tensor>& inputs) const {
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
  const at::NoGradGuard no_grad;
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
  const std::vector<TrainedTensor> leaves = make_leaves(net);
  std::vector<at::Tensor> weights;
  for (const TrainedTensor& leaf : leaves) weights.push_back(leaf.weight);
  std::shared_ptr<DropoutState> dropout;
  if (net.config().family == CnnFamily::kVgg) {
    dropout = std::make_shared<DropoutState>();
    dropout->seed = options.seed;
    dropout->counter = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(net.device()));
    net.set_dropout(dropout);
  }
  if (net.device().is_cuda()) at::globalContext().setBenchmarkCuDNN(true);
  ClassifierStep step(net, images, options, weights, dropout, reporter);
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
  TrainResult result = train(
      leaves, [&](std::int64_t number) { return step.gradients(number); }, loop, run, reporter,
      stop);
  freeze(leaves);
  net.set_dropout(nullptr);
  return result;
}

}  // namespace espalier
