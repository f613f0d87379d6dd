// What a classifier's training and its estimate share: leaves in the net, and the step from rows to
// gradients. Internal.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/data/row_order.h"
#include "espalier/nn/low_rank.h"
#include "espalier/train/classifier.h"

namespace espalier {

/// A net in training. The net's own tensors are replaced by leaves, its statistics by copies.
struct TrainedNet {
  Cnn& net;
  std::vector<TrainedTensor> leaves;
  std::shared_ptr<DropoutState> dropout;  // null for nets without
};

/// With bfloat16 activations the matrices are bfloat16 copies of float32 masters: one pass casts
/// all of them after a step, in place of one cast each per use.
TrainedNet begin_training(Cnn& net, const ClassifierOptions& options);
/// The masters in place of the leaves.
void end_training(const TrainedNet& trained);

/// Rows of an epoch to loss and gradients. Everything given must outlive it.
class ClassifierStep {
 public:
  ClassifierStep(const TrainedNet& trained, const ImageSet& images,
                 const ClassifierOptions& options);

  /// Rows (or, where pixels do not lie on the device, pixels), labels in the second case, draws of
  /// the augmentation, number of the dropout masks.
  std::vector<at::Tensor> inputs(std::int64_t step);
  /// The mean loss and the float32 gradients; see DeviceStep.
  std::vector<at::Tensor> loss_and_gradients(const std::vector<at::Tensor>& inputs) const;

 private:
  const Cnn& net_;
  const ClassifierOptions& options_;
  RowOrder order_;
  std::vector<at::Tensor> weights_;
  std::shared_ptr<DropoutState> dropout_;
  bool resident_ = false;
  at::Tensor pixels_, labels_;
};

}  // namespace espalier
