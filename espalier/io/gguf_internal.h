// Parsing of a GGUF header from memory, apart from mapping files, so that it can be fuzzed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "espalier/io/gguf.h"

namespace espalier {

struct GgufTensorInfo {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;     // row-major
  std::uint64_t begin = 0, bytes = 0;  // absolute in the file
};

struct GgufHeader {
  std::uint32_t version = 0;
  std::uint64_t alignment = 32;
  std::vector<std::pair<std::string, GgufValue>> metadata;
  std::vector<GgufTensorInfo> tensors;
};

/// Validates everything that GgufFile::open promises for one file. `bytes` is the whole file; only
/// the header is read.
GgufHeader parse_gguf_header(std::span<const std::byte> bytes, std::string_view source);

/// "f32", "array": for messages.
std::string_view gguf_value_type_name(GgufValueType type);
/// Bytes of one element; 0 for strings and arrays.
std::size_t gguf_value_size(GgufValueType type);

}  // namespace espalier
