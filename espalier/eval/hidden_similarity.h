// CKA between the hidden features of a CNN, one layer's features at a time: only centred Grams are
// kept, so memory does not grow with the number or the width of layers.
#pragma once

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/eval/image_sample.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/similarity/similarity.h"

namespace espalier {

/// What becomes of a feature [n, c, h, w].
enum class FeatureForm : std::uint8_t {
  kPooled,     // its mean over height and width, [n, c]
  kFlattened,  // all of it, [n, c * h * w]
};

struct HiddenSimilarityOptions {
  FeatureForm form = FeatureForm::kPooled;
  CkaEstimator estimator = CkaEstimator::kUnbiased;
  std::int64_t chunk_values = kFeatureChunk;  // see HsicMatrix
};

/// CKA of all pairs of the hidden set of `net` (evaluation mode) over the batches, in order.
///
/// `on_batch` (may be empty) gets each batch's own matrix [M, M], NaN for degenerate layers. Needs
/// check_image_sample to have passed and at least 4 images a batch (unbiased; 2 biased), else
/// Error(kInput). Memory besides the network and one batch of activations: M rows of
/// batch_size^2 / 2 numbers in float64 and `chunk_values` numbers. Time: a forward pass and, per
/// layer and batch, batch_size^2 times the features' width. Throws Interrupted after a stop
/// request.
HsicMatrix hidden_similarity(const Cnn& net, const ImageSample& images,
                             const HiddenSimilarityOptions& options,
                             const std::function<void(const at::Tensor& cka)>& on_batch,
                             Reporter& reporter, const StopToken& stop = never_stop());

}  // namespace espalier
