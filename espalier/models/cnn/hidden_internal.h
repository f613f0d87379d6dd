// Where the layers of the hidden set lie among the tensor names. Internal to models/cnn.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/models/cnn/config.h"

namespace espalier {

struct HiddenSlot {
  std::string name;                   // of the layer: conv1, layer1.0, features.3
  std::vector<std::string> prefixes;  // of its tensors: "conv1.", "bn1."
  std::int64_t stage = -1;            // -1: a stem of its own
  std::int64_t position = 0;          // within the stage, of what is left

  bool owns(std::string_view tensor) const;
  /// What follows the prefix of slot `from`, behind the same prefix of this slot.
  std::string renamed(const HiddenSlot& from, std::string_view tensor) const;
};

/// In the order of Cnn::forward_hidden.
std::vector<HiddenSlot> hidden_slots(const CnnConfig& config);

}  // namespace espalier
