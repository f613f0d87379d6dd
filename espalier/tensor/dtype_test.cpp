// Names and sizes of element types.
#include "espalier/tensor/dtype.h"

#include <vector>

#include <gtest/gtest.h>

#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

const std::vector<Dtype> kAll{Dtype::kF64,    Dtype::kF32,    Dtype::kF16, Dtype::kBF16,
                              Dtype::kF8E4M3, Dtype::kF8E5M2, Dtype::kI64, Dtype::kI32,
                              Dtype::kI16,    Dtype::kI8,     Dtype::kU8,  Dtype::kBool};

TEST(Dtype, NamesRoundTripInEveryFormat) {
  for (const Dtype dtype : kAll) {
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
    EXPECT_EQ(parse_dtype("torch." + std::string(dtype_name(dtype))), dtype);
    EXPECT_EQ(parse_safetensors_dtype(safetensors_name(dtype)), dtype);
    EXPECT_EQ(to_dtype(to_scalar_type(dtype)), dtype);
    EXPECT_EQ(dtype_size(dtype),
              static_cast<std::int64_t>(c10::elementSize(to_scalar_type(dtype))));
  }
}

TEST(Dtype, AcceptsTheUsualSpellings) {
  EXPECT_EQ(parse_dtype("fp32"), Dtype::kF32);
  EXPECT_EQ(parse_dtype("f32"), Dtype::kF32);
  EXPECT_EQ(parse_dtype("fp16"), Dtype::kF16);
  EXPECT_EQ(parse_dtype("half"), Dtype::kF16);
  EXPECT_EQ(parse_dtype("float"), Dtype::kF32);  // PyTorch's own alias
  EXPECT_EQ(parse_dtype("bf16"), Dtype::kBF16);
  EXPECT_EQ(parse_dtype("torch.bfloat16"), Dtype::kBF16);
  EXPECT_EQ(parse_dtype("fp8_e4m3"), Dtype::kF8E4M3);
}

TEST(Dtype, RefusesOtherText) {
  for (const char* text : {"", "torch.", "Float32", "fp", "f", "float33", "q8_0", "fp32 "}) {
    EXPECT_FALSE(parse_dtype(text).has_value()) << text;
  }
  EXPECT_FALSE(parse_safetensors_dtype("f32").has_value());
  EXPECT_FALSE(parse_safetensors_dtype("F4").has_value());
}

}  // namespace
}  // namespace espalier
