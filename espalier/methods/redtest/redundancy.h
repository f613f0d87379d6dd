// MSRS of a CNN: how many pairs of its layers carry the same representation. From a network and
// images to the number, and to the files and the report of `espalier redundancy`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/eval/image_sample.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/similarity/similarity.h"

namespace espalier::redtest {

/// How batches are averaged.
enum class CkaAverage : std::uint8_t {
  kHsic,   // HSIC over batches, then one ratio: the minibatch estimator
  kRatio,  // CKA and MSRS of each batch, as the published code does
};

struct RedundancyOptions {
  CkaEstimator estimator = CkaEstimator::kUnbiased;
  CkaAverage average = CkaAverage::kHsic;
  double beta = 100, tau = 0.8;
};

struct Redundancy {
  at::Tensor cka;  // [M, M] float64 over the hidden set, NaN for degenerate layers
  /// Of `cka`; with kRatio the mean over batches of each batch's MSRS. Degenerate layers count 0.
  Msrs msrs;
  /// CKA of layers i and i+1, the mean of the batches' ratios whatever `average` says; M - 1.
  std::vector<double> adjacent;
  std::vector<std::int64_t> degenerate;
};

/// MSRS of the hidden set of `net` over global averages of its features, in evaluation mode. Throws
/// what check_image_sample and hidden_similarity throw; warns once of degenerate layers.
/// Source: RedTest, arXiv 2411.10507 (spec 2.8).
Redundancy measure_redundancy(const Cnn& net, const ImageSample& images,
                              const RedundancyOptions& options, Reporter& reporter,
                              const StopToken& stop = never_stop());

}  // namespace espalier::redtest
