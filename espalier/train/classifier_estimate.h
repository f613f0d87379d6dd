// What training a classifier will cost, before it starts.
#pragma once

#include <cstdint>

#include "espalier/train/classifier.h"

namespace espalier {

struct ClassifierEstimate {
  std::int64_t steps = 0;
  std::int64_t weight_bytes = 0;      // weights, masters, gradients, optimizer state, average
  std::int64_t activation_bytes = 0;  // of one batch
  std::int64_t image_bytes = 0;       // pixels that lie on the device of the net
  std::int64_t checkpoint_bytes = 0;  // on disk
  double seconds = 0;                 // of all steps; measurements between them not counted

  std::int64_t peak_bytes() const { return weight_bytes + activation_bytes + image_bytes; }
};

/// Runs the step of a copy of `net` a few times (on the CPU with up to 32 images) and counts
/// bytes: activations as twice what convolutions give, once before and once after their norm, with
/// the blocks' inner convolutions taken from the family. Throws what train_classifier throws for
/// images that do not fit.
ClassifierEstimate estimate_classifier(const Cnn& net, const ImageSet& images,
                                       const ClassifierOptions& options, Reporter& reporter);

}  // namespace espalier
