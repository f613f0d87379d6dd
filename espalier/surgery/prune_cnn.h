// A CNN with some of its hidden layers taken out, as a folder of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/models/cnn/cnn.h"

namespace espalier {

struct PrunedCnn {
  CnnConfig config;
  std::vector<std::int64_t> kept, removed;             // indices of the source's hidden layers
  std::vector<std::string> kept_names, removed_names;  // as the source calls them
  std::int64_t parameters_before = 0, parameters_after = 0;
  std::uint64_t bytes = 0;  // of the folder
};

/// Writes the net of the kept hidden layers (see Cnn::with_layers for what may go) into `folder`:
/// config.json with the original indices per stage, model.safetensors with renumbered names. Then
/// loads it again and compares its logits with those of the net in memory, bit for bit.
///
/// Throws Error(kUsage) for a plan that does not fit, Error(kInternal) when the folder and the net
/// in memory differ. `source` keeps its weights.
PrunedCnn write_pruned_cnn(const Cnn& source, const std::vector<std::int64_t>& kept_hidden,
                           const LayerDropOptions& options, const std::filesystem::path& folder,
                           Reporter& reporter);

}  // namespace espalier
