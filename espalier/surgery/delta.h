// Delta checkpoints: a safetensors file with only the tensors that training changed, under their
// final names, and in its metadata which layers of the source model are left.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/io/safetensors.h"

namespace espalier {

struct DeltaInfo {
  std::string source;              // name of the model it applies to, for people
  std::int64_t layers_before = 0;  // of that model
  std::vector<std::int64_t> kept;  // its layers that stay; empty: all
};

struct DeltaFile {
  DeltaInfo info;
  std::vector<StoredTensor> tensors;  // names as in the finished model, layers renumbered

  /// Throws Error(kInput) for files that are no delta, and for a kept list that is not ascending
  /// within layers_before.
  static DeltaFile open(const std::filesystem::path& path);
};

/// Writes `path`; contiguous CPU tensors, dtype kept.
void write_delta(const std::filesystem::path& path,
                 const std::map<std::string, at::Tensor>& tensors, const DeltaInfo& info);

}  // namespace espalier
