// What counts as rounding and what as another model.
#include "espalier/surgery/compare_models.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/io/hf_folder.h"
#include "espalier/surgery/write_model.h"

#include "tests/support/tiny_model.h"

namespace espalier {
namespace {

using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;

TEST(CompareModels, EqualRoundedAndWrong) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 4}.write_folder(dir / "source");
  std::filesystem::create_directory(dir / "same");
  convert_to_hf(dir / "source", dir / "same", Dtype::kF32, silent_reporter());
  const ModelComparison same =
      compare_models(dir / "source", {}, dir / "same",
                     comparison_limit(GgufType::kF32, GgufType::kF32), silent_reporter());
  EXPECT_EQ(same.max_abs_diff, 0);
  EXPECT_EQ(same.top1_agreement, 1);
  EXPECT_EQ(same.tokens, 16);

  std::filesystem::create_directory(dir / "half");
  convert_to_hf(dir / "source", dir / "half", Dtype::kBF16, silent_reporter());
  const ModelComparison half =
      compare_models(dir / "source", {}, dir / "half",
                     comparison_limit(GgufType::kF32, GgufType::kBF16), silent_reporter());
  EXPECT_GT(half.max_abs_diff, 0);
  EXPECT_LT(half.relative_error, 0.05);

  // Kept layers on the way, and the same output against other layers: another model.
  std::filesystem::create_directory(dir / "cut");
  convert_to_hf(dir / "source", dir / "cut", Dtype::kF32, silent_reporter(), {0, 3});
  EXPECT_NO_THROW(compare_models(dir / "source", {0, 3}, dir / "cut",
                                 comparison_limit(GgufType::kF32, GgufType::kF32),
                                 silent_reporter()));
  try {
    compare_models(dir / "source", {0, 2}, dir / "cut",
                   comparison_limit(GgufType::kF32, GgufType::kQ8_0), silent_reporter());
    FAIL() << "another layer passed as rounding";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInternal);
    EXPECT_NE(error.message().find("logits differ"), std::string::npos);
  }
}

TEST(ConvertToHf, FolderOfAnotherTypeKeepsConfigKeys) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 3, .qwen2 = true}.write_folder(dir / "source");
  std::filesystem::create_directory(dir / "out");
  convert_to_hf(dir / "source", dir / "out", Dtype::kF16, silent_reporter(), {0, 2});
  const HfFolder out = HfFolder::open(dir / "out");
  const Json config = parse_json(out.config_text(), "");
  EXPECT_EQ(config["torch_dtype"], "float16");
  EXPECT_EQ(config["num_hidden_layers"], 2);
  EXPECT_EQ(config["rms_norm_eps"], 1e-5);
  EXPECT_EQ(out.find("model.layers.1.self_attn.q_proj.bias")->dtype, Dtype::kF16);
  EXPECT_EQ(default_hf_dtype(dir / "out"), Dtype::kF16);
  EXPECT_EQ(default_gguf_type(dir / "source"), GgufType::kF32);
  EXPECT_THROW(convert_to_hf(dir / "source", dir / "out", Dtype::kI8, silent_reporter()), Error);
}

}  // namespace
}  // namespace espalier
