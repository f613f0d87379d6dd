// A training checkpoint: one safetensors file with the tensors and, in its metadata, the state as
// JSON text. One file, so that it is there whole or not at all; never a pickle.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/io/safetensors.h"

namespace espalier {

/// Writes folder/step-00000012.safetensors: to a temporary name first, synced to disk, renamed;
/// then older checkpoints of the folder go. The folder is made when missing. Throws
/// Error(kResource) when the disk is full; older checkpoints stay then.
void save_checkpoint(const std::filesystem::path& folder, std::int64_t step,
                     const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                     const std::string& state_json);

struct LoadedCheckpoint {
  std::int64_t step = 0;
  std::string state_json;
  SafetensorsFile file;
};

/// The checkpoint of the highest step, mapped; nullopt when the folder holds none. Throws
/// Error(kInput) when it is broken.
std::optional<LoadedCheckpoint> load_newest_checkpoint(const std::filesystem::path& folder);

/// Copies the stored tensor into `destination` (same shape and dtype, any device). Error(kInput)
/// when it is missing or differs in shape or dtype.
void restore_tensor(const LoadedCheckpoint& checkpoint, const std::string& name,
                    at::Tensor destination);

}  // namespace espalier
