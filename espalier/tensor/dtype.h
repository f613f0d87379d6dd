// Element types of files and tensors in one list, with their names in each format. Torch-free:
// at::ScalarType conversions are in tensor/tensor_view.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace espalier {

enum class Dtype : std::uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool
};

/// Bytes of one element.
std::int64_t dtype_size(Dtype dtype);

/// "float32", "bfloat16": as flags, configs and JSON spell it.
std::string_view dtype_name(Dtype dtype);
/// Accepts "float32", "fp32", "f32", "torch.float32" and so on; nullopt for anything else.
std::optional<Dtype> parse_dtype(std::string_view name);

/// "F32", "BF16", "F8_E4M3": as safetensors headers spell it.
std::string_view safetensors_name(Dtype dtype);
std::optional<Dtype> parse_safetensors_dtype(std::string_view name);

}  // namespace espalier
