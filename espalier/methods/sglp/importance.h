// GradNorm, SGLP's importance: the length of the loss' gradient. Per layer from one backward pass
// of the trained network, or per combination of layers as the published code measures it.
#pragma once

#include <cstdint>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/eval/image_sample.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/similarity/segmentation.h"

namespace espalier::sglp {

/// Images that go through the network at once; a batch's gradient is the sum of its parts'.
inline constexpr std::int64_t kGradientPart = 64;

/// Mean over batches of sqrt(sum of squares of dLoss/dw over all tensors of the layer), one number
/// per hidden layer, float64. The loss of a batch is its mean cross-entropy; norms are in
/// evaluation mode, so that a batch may be cut into parts. Memory: activations of kGradientPart
/// images and one gradient per weight. Throws Error(kInput) naming the layer when a norm is not
/// finite; Interrupted after a stop request.
std::vector<double> layer_gradient_norms(const Cnn& net, const ImageSample& images,
                                         Reporter& reporter, const StopToken& stop = never_stop());

struct CombinationOptions {
  std::int64_t batches = 2, batch_size = 64;  // drawn once, the same for every combination
  std::uint64_t seed = 0;
  std::int64_t limit = 20'000;  // most networks to try
};

/// The best combination of each segment: `budgets[s]` layers of segment s, `always` among them,
/// whose network has the largest gradient norm over all parameters.
///
/// The network of a combination has random weights everywhere but in the combination's layers,
/// which have those of `net`; norms are in training mode. The random weights are made once and
/// restored for each combination, and all see the same images, so combinations differ by their
/// layers alone (the published code resets neither). Ties: the first combination in lexicographic
/// order. Throws Error(kUsage) with the number of networks when there are more than the limit.
struct CombinationChoice {
  std::vector<std::int64_t> kept;  // ascending, over all segments
  std::vector<double> norms;       // of the best combination of each segment
  std::int64_t networks = 0;       // that were tried
};
CombinationChoice best_combinations(const Cnn& net, const ImageSample& images,
                                    const Segmentation& segmentation,
                                    const std::vector<std::int64_t>& budgets,
                                    const std::vector<std::int64_t>& always,
                                    const CombinationOptions& options, Reporter& reporter,
                                    const StopToken& stop = never_stop());

/// How many networks best_combinations tries; saturates at the largest int64.
std::int64_t combination_count(const Segmentation& segmentation, std::int64_t layers,
                               const std::vector<std::int64_t>& budgets,
                               const std::vector<std::int64_t>& always);

}  // namespace espalier::sglp
