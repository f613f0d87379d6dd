// See classifier_estimate.h.
#include "espalier/train/classifier_estimate.h"

#include <algorithm>
#include <variant>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/units.h"
#include "espalier/train/classifier_step_internal.h"
#include "espalier/train/recorded_steps.h"

namespace espalier {
namespace {

constexpr std::int64_t kProbeImages = 32;  // on the CPU

/// Tensors the size of a hidden feature that the backward pass of a layer needs: the input and the
/// output of each norm, and what else there is.
double kept_per_feature(CnnFamily family) {
  switch (family) {
    case CnnFamily::kCifarResnet:
      return 4;  // two convolutions
    case CnnFamily::kResnet:
      return 4;  // two, or three of which two are a quarter as wide
    case CnnFamily::kVgg:
      return 2;
    case CnnFamily::kNatsCell:
      return 12;  // up to six edges of ReLU and convolution
  }
  return 4;
}

/// Elements of the hidden features of one image.
std::int64_t feature_elements(const Cnn& net, const ImageSet& images) {
  const at::NoGradGuard no_grad;
  const at::Tensor one =
      at::zeros({1, images.channels(), images.pixels.size(2), images.pixels.size(3)},
                at::TensorOptions().device(net.device()));
  std::int64_t elements = 0;
  net.forward_hidden(one, NormMode::kRunning,
                     [&](std::int64_t, const at::Tensor& feature) { elements += feature.numel(); });
  return elements;
}

/// Seconds of a step of options.batch_size images, of the third: the first warms up, the second may
/// be recorded.
double step_seconds(const Cnn& net, const ImageSet& images, const ClassifierOptions& options,
                    Reporter& reporter) {
  Cnn copy = net;
  ClassifierOptions probe = options;
  if (net.device().is_cpu()) probe.batch_size = std::min(options.batch_size, kProbeImages);
  probe.batch_size = std::min(probe.batch_size, images.size());
  const TrainedNet trained = begin_training(copy, probe);
  ClassifierStep step(trained, images, probe);
  RecordedSteps recorded(net.device(), options.capture, 1, reporter);
  double seconds = 0;
  for (int run = 0; run < 3; ++run) {
    const Stopwatch watch;
    const auto out = recorded.run(
        [&](const std::vector<at::Tensor>& inputs) { return step.loss_and_gradients(inputs); },
        step.inputs(0));
    out.front().to(at::kCPU);
    seconds = watch.seconds();
  }
  return seconds * static_cast<double>(options.batch_size) / static_cast<double>(probe.batch_size);
}

}  // namespace

ClassifierEstimate estimate_classifier(const Cnn& net, const ImageSet& images,
                                       const ClassifierOptions& options, Reporter& reporter) {
  check_images_fit(net.config(), images.channels(),
                   static_cast<std::int64_t>(images.classes.size()));
  ClassifierEstimate estimate;
  estimate.steps = classifier_steps(images, options);
  const std::int64_t element = options.type == at::kBFloat16 ? 2 : 4;
  const auto* sgd = std::get_if<SgdOptions>(&options.optimizer);
  const std::int64_t states = sgd == nullptr ? 2 : (sgd->momentum > 0 ? 1 : 0);
  const std::int64_t copies = 1 + states + (options.ema > 0 ? 1 : 0);  // float32, kept and stored
  const std::int64_t parameters = net.parameter_count();
  estimate.checkpoint_bytes = parameters * 4 * (copies + (options.keep_best ? 1 : 0));
  estimate.weight_bytes = parameters * (4 * (copies + 1) + (element == 2 ? 4 : 0));
  const std::int64_t batch = std::min(options.batch_size, images.size());
  estimate.activation_bytes = static_cast<std::int64_t>(
      kept_per_feature(net.config().family) *
      static_cast<double>(feature_elements(net, images) * batch * element));
  estimate.image_bytes = static_cast<std::int64_t>(images.pixels.nbytes());
  estimate.seconds = step_seconds(net, images, options, reporter) *
                     static_cast<double>(images.size()) * static_cast<double>(options.epochs) /
                     static_cast<double>(options.batch_size);
  return estimate;
}

}  // namespace espalier
