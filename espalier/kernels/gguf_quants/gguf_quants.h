// Block formats of GGUF tensors: sizes, dequantisation (bit-equal to the gguf Python package) and
// the quantisers whose rounding is published exactly (Q8_0, Q4_0, Q4_1). Torch-free. Layouts:
// docs/formats/gguf.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace espalier {

/// Tensor types with their numbers in the format.
enum class GgufType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30
};

struct GgufTypeInfo {
  std::string_view name;   // "Q4_1"
  std::int64_t block = 1;  // elements per block
  std::int64_t bytes = 4;  // bytes per block
};

/// nullopt for type ids we do not have.
std::optional<GgufTypeInfo> find_gguf_type(std::uint32_t id);
const GgufTypeInfo& gguf_type_info(GgufType type);
/// From "q4_1", "Q4_1", "f16", "bf16".
std::optional<GgufType> parse_gguf_type(std::string_view name);

/// Bytes of `numel` elements; numel must be a multiple of the block.
std::int64_t gguf_bytes(GgufType type, std::int64_t numel);

/// Dequantises whole blocks to float32. bytes.size() == gguf_bytes(type, out.size()).
void dequantize(GgufType type, std::span<const std::byte> bytes, std::span<float> out);
/// The definition, scalar and unoptimised; `dequantize` is bit-equal to it.
void dequantize_reference(GgufType type, std::span<const std::byte> bytes, std::span<float> out);

/// Quantises whole blocks. Supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1; Error(kUnsupported)
/// otherwise.
void quantize(GgufType type, std::span<const float> values, std::span<std::byte> out);

/// The definition, scalar and unoptimised; `quantize` is bit-equal to it.
void quantize_reference(GgufType type, std::span<const float> values, std::span<std::byte> out);

}  // namespace espalier
