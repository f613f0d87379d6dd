// mergekit's YAML files read with positions. yaml-cpp is seen by merge_file.cpp only; what the file
// means for a model is decided in methods/layer_pruning/mergekit.h.
#pragma once

#include <filesystem>

#include "espalier/methods/layer_pruning/mergekit.h"

namespace espalier::cli {

/// At most 1 MiB and 4096 slices. Throws Error(kInput) listing every problem as file:line:column:
/// no YAML, no mapping, slices or sources of another shape, ranges that are not two whole numbers;
/// Error(kUnsupported) for parameters, which would change weights.
layer_pruning::MergeFile read_merge_file(const std::filesystem::path& file);

}  // namespace espalier::cli
