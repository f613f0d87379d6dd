// Reads every weight of a file for NaN and Inf.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/io/gguf.h"
#include "espalier/io/safetensors.h"

namespace espalier::cli {

struct ScanItem {
  std::string name;
  std::span<const std::byte> data;
  std::int64_t elements = 0;
  std::shared_ptr<const MappedFile> file;
  /// How to read it: a GGUF type, or a safetensors dtype when `is_gguf` is false.
  bool is_gguf = false;
  GgufType type = GgufType::kF32;
  Dtype dtype = Dtype::kF32;
};

struct ScanFinding {
  std::string name;
  std::int64_t nan = 0, inf = 0;
  bool all_zero = false;
};

/// Findings in the order of `items`, only tensors with something to say. Progress in bytes; pages
/// are released behind the reader, so resident memory stays O(1). Throws Interrupted on a stop
/// request.
std::vector<ScanFinding> scan_values(const std::vector<ScanItem>& items, Reporter& reporter,
                                     const StopToken& stop);

}  // namespace espalier::cli
