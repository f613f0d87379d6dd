// One micro-batch from token ids to gradients: frozen prefix, trained layers, head and loss; with
// activations kept or computed again, and on CUDA recorded as a graph.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/methods/layer_pruning/trainable.h"
#include "espalier/methods/layer_pruning/tuning_batch.h"
#include "espalier/train/recorded_steps.h"

namespace espalier::layer_pruning {

struct MicroGradients {
  at::Tensor loss;                    // scaled, float32 scalar on the device
  std::vector<at::Tensor> gradients;  // float32, one per trained tensor; valid until the next call
};

class TuningStep {
 public:
  /// Both must outlive this object.
  TuningStep(Decoder& model, const Trainable& trainable, const FinetuneOptions& options,
             Reporter& reporter);

  /// States entering the first trained layer, [batch, tokens, d].
  at::Tensor prefix(const TuningBatch& batch);

  /// Loss `scale` * (sum of NLL) and its gradients. `prefix`: what entered the first trained layer
  /// when it is cached, [batch, tokens, d] on any device; undefined to compute it. `draw`: number
  /// of the adapters' dropout masks.
  MicroGradients gradients(const TuningBatch& batch, double scale, const at::Tensor& prefix,
                           std::int64_t draw);

 private:
  struct Inputs;
  std::vector<at::Tensor> compute(const Inputs& inputs, const AttentionContext& context) const;
  at::Tensor loss_of(const at::Tensor& h, const Inputs& inputs) const;
  std::vector<at::Tensor> plain(const at::Tensor& start, const Inputs& inputs,
                                const AttentionContext& context) const;
  std::vector<at::Tensor> checkpointed(const at::Tensor& start, const Inputs& inputs,
                                       const AttentionContext& context) const;
  const AttentionContext& context_of(const TuningBatch& batch);

  Decoder& model_;
  const Trainable& trainable_;
  const FinetuneOptions& options_;
  std::vector<at::Tensor> weights_;
  std::map<std::int64_t, AttentionContext> contexts_;  // of rectangles, by width
  AttentionContext packed_context_;

  /// The loss is computed on the device without a word to the host, so that a step can be recorded.
  bool device_loss_ = false;
  RecordedSteps recorded_;
};

}  // namespace espalier::layer_pruning
