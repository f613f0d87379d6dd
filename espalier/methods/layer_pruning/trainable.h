// What trains: a mode turned into leaves of the model, with everything else frozen.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/methods/layer_pruning/finetune.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/train/trained_tensor.h"

namespace espalier::layer_pruning {

struct Trainable {
  std::vector<TrainedTensor> tensors;
  std::vector<std::int64_t> layers;       // of each tensor: its layer, or -1 outside layers
  std::int64_t first_layer = 0;           // everything below is frozen, the embedding included
  bool embedding = false;                 // the embedding trains
  std::uint64_t untied_bytes = 0;         // of a head that became a tensor of its own
  std::shared_ptr<DropoutState> dropout;  // of adapters; null without dropout
};

/// Makes the leaves. Partial mode, and modules_to_save with lm_head, untie the head (the reporter
/// says so). Adapters are attached unless the model carries some already, which then go on.
/// `source`: see finetune(). Errors: those of trained_names and attach_adapters.
Trainable make_trainable(Decoder& model, const FinetuneOptions& options,
                         const DecoderCheckpoint* source, Reporter& reporter);

}  // namespace espalier::layer_pruning
