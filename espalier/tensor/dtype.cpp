// The one table of element types and their names.
#include "espalier/tensor/dtype.h"

#include <array>

#include "espalier/base/error.h"

namespace espalier {
namespace {

struct DtypeRow {
  Dtype dtype;
  std::int64_t size;
  std::string_view name;         // flags, configs, JSON
  std::string_view short_name;   // also accepted by parse_dtype
  std::string_view other_name;   // also accepted by parse_dtype
  std::string_view safetensors;  // safetensors headers
};

// In the order of the enumerators, so that a dtype is an index.
constexpr std::array<DtypeRow, 12> kDtypes{{
    {Dtype::kF64, 8, "float64", "f64", "double", "F64"},
    {Dtype::kF32, 4, "float32", "f32", "float", "F32"},
    {Dtype::kF16, 2, "float16", "f16", "half", "F16"},
    {Dtype::kBF16, 2, "bfloat16", "bf16", "bfloat16", "BF16"},
    {Dtype::kF8E4M3, 1, "float8_e4m3fn", "f8_e4m3", "fp8_e4m3", "F8_E4M3"},
    {Dtype::kF8E5M2, 1, "float8_e5m2", "f8_e5m2", "fp8_e5m2", "F8_E5M2"},
    {Dtype::kI64, 8, "int64", "i64", "long", "I64"},
    {Dtype::kI32, 4, "int32", "i32", "int", "I32"},
    {Dtype::kI16, 2, "int16", "i16", "short", "I16"},
    {Dtype::kI8, 1, "int8", "i8", "char", "I8"},
    {Dtype::kU8, 1, "uint8", "u8", "byte", "U8"},
    {Dtype::kBool, 1, "bool", "bool", "boolean", "BOOL"},
}};

const DtypeRow& row_of(Dtype dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  ESPALIER_ASSERT(index < kDtypes.size());
  ESPALIER_DCHECK(kDtypes[index].dtype == dtype);
  return kDtypes[index];
}

}  // namespace

std::int64_t dtype_size(Dtype dtype) { return row_of(dtype).size; }
std::string_view dtype_name(Dtype dtype) { return row_of(dtype).name; }
std::string_view safetensors_name(Dtype dtype) { return row_of(dtype).safetensors; }

std::optional<Dtype> parse_dtype(std::string_view name) {
  constexpr std::string_view kTorch = "torch.";
  if (name.starts_with(kTorch)) name.remove_prefix(kTorch.size());
  for (const DtypeRow& row : kDtypes) {
    if (name == row.name || name == row.short_name || name == row.other_name) return row.dtype;
    // "fp32" and "fp16" are how training scripts spell it.
    if (name.starts_with("fp") && row.short_name.front() == 'f' &&
        name.substr(2) == row.short_name.substr(1)) {
      return row.dtype;
    }
  }
  return std::nullopt;
}

std::optional<Dtype> parse_safetensors_dtype(std::string_view name) {
  for (const DtypeRow& row : kDtypes) {
    if (name == row.safetensors) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace espalier
