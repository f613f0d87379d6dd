// Names of an adapter that was trained before its model lost layers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// "model.layers.7.mlp.up_proj" of the unpruned model as the pruned one calls it: layer kept[i]
/// becomes i. Nothing when that layer went; names outside layers stay as they are.
std::optional<std::string> remapped_name(std::string_view name,
                                         const std::vector<std::int64_t>& kept);

struct PruningRecord {
  std::int64_t layers_before = 0;
  std::vector<std::int64_t> kept;
};
/// What espalier_pruning.json of a pruned folder says; nothing when there is no such file. Throws
/// Error(kInput) for a file that is not what prune writes.
std::optional<PruningRecord> read_pruning_record(const std::filesystem::path& model);

}  // namespace espalier
