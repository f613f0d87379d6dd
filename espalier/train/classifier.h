// Training of an image classifier: batches, augmentation and loss on the device of the net, one
// CUDA graph per step where there is one. The loop itself is train_loop.h's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/data/augment.h"
#include "espalier/data/image_set.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/run/run_folder.h"
#include "espalier/train/train_loop.h"

namespace espalier {

struct ClassifierOptions {
  std::int64_t epochs = 200;
  std::int64_t batch_size = 256;  // the last batch of an epoch is smaller when images are left
  OptimizerOptions optimizer = SgdOptions{.momentum = 0.9, .nesterov = true, .weight_decay = 5e-4};
  double lr = 0.1;
  LrDecay decay = LrDecay::kCosine;
  double floor = 0;                      // rate that linear and cosine decay end at
  std::vector<std::int64_t> milestones;  // epochs from which on the rate is `gamma` times as high
  double gamma = 0.1;
  bool per_epoch = false;          // the rate changes between epochs only
  std::int64_t warmup_epochs = 0;  // over which the rate rises from 0, step by step
  double label_smoothing = 0;
  double clip = 0;  // largest global gradient norm; 0 = off
  double ema = 0;   // see TrainOptions::ema
  AugmentOptions augment;
  at::ScalarType type = at::kFloat;  // of activations: float32 or bfloat16; weights stay float32
  bool channels_last = true;
  bool capture = true;  // whole steps as CUDA graphs, on CUDA
  std::uint64_t seed = 0;
  std::int64_t checkpoint_epochs = 1;
  /// Measured after every `evaluate_epochs` epochs and at the end. Empty: never.
  std::function<Evaluation(const Cnn&)> evaluate;
  std::int64_t evaluate_epochs = 1;
  bool keep_best = false;  // by the evaluation's loss; false: the last weights stay
  std::vector<std::pair<std::string, std::string>> must_match, may_change;  // of the loop
};

/// Steps of the whole run.
std::int64_t classifier_steps(const ImageSet& images, const ClassifierOptions& options);

/// Mean cross-entropy of logits [n, classes] (any float dtype) with labels [n]; the target is 1 -
/// smoothing on the label plus smoothing / classes everywhere. float32 scalar, differentiable.
/// Source: Szegedy et al. 2016, as torch's cross_entropy.
at::Tensor classification_loss(const at::Tensor& logits, const at::Tensor& labels,
                               double smoothing);

/// Trains `net` in place, on its device, on images normalised by its config. Weights are float32
/// masters; with options.type bfloat16 activations and gradients between layers are bfloat16.
///
/// The order of images and their augmentation are pure functions of (seed, epoch, image), so that a
/// resumed run sees what an uninterrupted one sees; on one CPU thread it is equal to it bit by bit.
/// On CUDA all pixels lie in device memory when they fit into a quarter of what is free.
/// Throws Error(kInput) when the images' channels are not the net's or there are more classes than
/// outputs, and what train() throws.
TrainResult train_classifier(Cnn& net, const ImageSet& images, const ClassifierOptions& options,
                             RunFolder& run, Reporter& reporter, const StopToken& stop);

}  // namespace espalier
