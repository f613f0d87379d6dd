// Options to the loop's terms; the step is classifier_step.cpp's.
#include "espalier/train/classifier.h"

#include <ATen/ATen.h>

#include "espalier/train/classifier_step_internal.h"

namespace espalier {
namespace {

Schedule schedule_of(const ClassifierOptions& options, std::int64_t steps_per_epoch) {
  Schedule schedule{options.lr, options.warmup_epochs * steps_per_epoch,
                    options.epochs * steps_per_epoch, options.decay, options.floor};
  if (options.per_epoch) schedule.granularity = steps_per_epoch;
  for (const std::int64_t epoch : options.milestones)
    schedule.milestones.push_back(epoch * steps_per_epoch);
  schedule.gamma = options.gamma;
  return schedule;
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
  check_images_fit(net.config(), images.channels(),
                   static_cast<std::int64_t>(images.classes.size()));
  const TrainedNet trained = begin_training(net, options);
  if (net.device().is_cuda()) at::globalContext().setBenchmarkCuDNN(true);
  ClassifierStep step(trained, images, options);
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
  TrainResult result = train(trained.leaves, device_step, loop, run, reporter, stop);
  end_training(trained);
  return result;
}

}  // namespace espalier
