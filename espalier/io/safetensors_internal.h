// Parsing of a safetensors header from memory, apart from mapping files, so that it can be fuzzed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/tensor/dtype.h"

namespace espalier {

struct SafetensorsEntry {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  // relative to data_start
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // sorted by data offset
  std::map<std::string, std::string> metadata;
  std::uint64_t data_start = 0;
};

/// Validates everything that SafetensorsFile::open promises. `bytes` is the whole file; only the
/// header is read.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> bytes,
                                           std::string_view source);

}  // namespace espalier
