// What `espalier search` does with a cell: a short training of its network, accuracy on images that
// did not train, MSRS of the trained network.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/data/image_set.h"
#include "espalier/methods/redtest/redundancy.h"
#include "espalier/methods/redtest/search_cells.h"
#include "espalier/train/classifier.h"

namespace espalier::redtest {

/// The images of a search. What is measured is chosen by, so `test` never is.
struct SearchImages {
  ImageSet training;
  ImageSet held_out;             // accuracy and MSRS
  std::optional<ImageSet> test;  // reported only
};

/// Takes the last `held_out` images, which the order of image sets balances over the classes, away
/// from training; 0 takes a tenth, rounded down. Nothing is copied. Throws Error(kUsage) when fewer
/// than one image per class would be left on either side.
SearchImages split_for_search(const ImageSet& images, std::int64_t held_out,
                              std::optional<ImageSet> test);

struct CellTraining {
  /// Epochs, rates, batches, seed, dtype; what is measured is not in here.
  ClassifierOptions classifier;
  std::vector<double> mean, std;  // normalisation; empty: the network's (CIFAR-10's)
  at::Device device = at::kCPU;
  std::int64_t eval_batch_size = 1000;
  /// Of held-out images for MSRS; batches 0: as many as there are, at most 10.
  std::int64_t msrs_batches = 0, msrs_batch_size = 256;
  double beta = 100, tau = 0.8;
  /// Checkpoints of cells that train just now lie here, in a folder per cell, and go when the cell
  /// is done: a search that was stopped goes on within the cell.
  std::filesystem::path work;
};

/// The spec's short training: SGD with Nesterov momentum 0.9, weight decay 5e-4, rate 0.1 falling
/// to 0 along a cosine, batches of 256, crops of 32 after padding by 4, mirror images.
ClassifierOptions short_training(std::int64_t epochs = 12);

/// Checks what can be checked before the first cell: the number of images against the batches of
/// MSRS. Throws Error(kUsage).
void check_cell_training(const CellTraining& training, const SearchImages& images);

/// Trains the network of `cell` from weights that depend on the seed and the cell's shape alone,
/// and measures it. Every cell sees the same images in the same order. Saves the network in
/// `weights` unless that is empty. Throws Error(kInput) when the loss or a logit is not finite,
/// Interrupted after a stop request, with a checkpoint in `work`.
CellResult train_cell(const NatsCell& cell, const SearchImages& images,
                      const CellTraining& training, const std::filesystem::path& weights,
                      Reporter& reporter, const StopToken& stop);

}  // namespace espalier::redtest
