// Accuracy of an image classifier on a labelled set. No augmentation; the order does not matter.
#pragma once

#include <cstdint>

#include "espalier/base/reporter.h"
#include "espalier/data/image_set.h"
#include "espalier/models/cnn/cnn.h"

namespace espalier {

struct Accuracy {
  double accuracy = 0;  // share of images whose largest logit is their class's
  double top5 = 0;      // share whose class is among the five largest logits (all, when fewer)
  double loss = 0;      // mean cross-entropy, natural logarithm
  std::int64_t n = 0;

  double accuracy_stderr() const;  // sqrt(p (1 - p) / n)
  double top5_stderr() const;
};

/// Runs `net` over the images, normalised by its config, in batches, with activations of `type`
/// (float32 or bfloat16) on the net's device. Loss and ranks are taken from float32 logits; among
/// equal logits the lower class comes first. Memory: one batch of activations.
/// Throws Error(kInput) when channels differ, when there are more classes than outputs, or when a
/// logit is not finite (naming the first image).
Accuracy measure_accuracy(const Cnn& net, const ImageSet& images, std::int64_t batch_size,
                          at::ScalarType type, Reporter& reporter, const StopToken& stop);

}  // namespace espalier
