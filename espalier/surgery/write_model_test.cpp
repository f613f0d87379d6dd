// Replaced tensors, re-encoded rows, row order of llama's q and k, metadata of converted models.
#include "espalier/surgery/write_model.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/io/hf_folder.h"
#include "espalier/surgery/model_metadata_internal.h"
#include "espalier/surgery/transcode_internal.h"
#include "espalier/tensor/tensor_view.h"

#include "tests/support/tiny_model.h"

namespace espalier {
namespace {

using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;

std::vector<std::byte> transcoded(const StoredWeight& source, GgufType type, std::int64_t heads) {
  std::vector<std::byte> out;
  transcode(source, type, {heads, 0}, [&](std::span<const std::byte> piece) {
    out.insert(out.end(), piece.begin(), piece.end());
  });
  return out;
}

StoredWeight float_weight(const std::vector<float>& values, std::vector<std::int64_t> shape) {
  return {GgufType::kF32, std::move(shape), std::as_bytes(std::span(values)), nullptr, 0};
}

std::vector<float> as_floats(const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST(Transcode, RowOrderOfTwoHeadsOfFour) {
  const std::vector<float> hf{0, 1, 2, 3, 4, 5, 6, 7};
  const auto gguf = as_floats(transcoded(float_weight(hf, {8, 1}), GgufType::kF32, 2));
  EXPECT_EQ(gguf, (std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7}));
  // A bias is reordered like its matrix, and reading undoes writing.
  EXPECT_EQ(as_floats(transcoded(float_weight(hf, {8}), GgufType::kF32, 2)), gguf);
  StoredWeight stored = float_weight(gguf, {8, 1});
  stored.permuted_heads = 2;
  EXPECT_EQ(as_floats(transcoded(stored, GgufType::kF32, 0)), hf);
}

TEST(Transcode, QuantisesAndDequantisesWholeRows) {
  std::vector<float> values(4 * 64);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  std::vector<std::byte> expected(static_cast<std::size_t>(gguf_bytes(GgufType::kQ8_0, 256)));
  quantize(GgufType::kQ8_0, values, expected);
  const auto q8 = transcoded(float_weight(values, {4, 64}), GgufType::kQ8_0, 0);
  EXPECT_EQ(q8, expected);
  std::vector<float> back(256);
  dequantize(GgufType::kQ8_0, expected, back);
  const StoredWeight stored{GgufType::kQ8_0, {4, 64}, q8, nullptr, 0};
  EXPECT_EQ(as_floats(transcoded(stored, GgufType::kF32, 0)), back);
  EXPECT_EQ(transcoded(stored, GgufType::kQ8_0, 0), q8);
  // Same type, other order: whole quantised rows move.
  const auto moved = transcoded(stored, GgufType::kQ8_0, 1);  // one head of four rows: 0 2 1 3
  const std::size_t row = q8.size() / 4;
  EXPECT_TRUE(std::equal(moved.begin() + static_cast<std::ptrdiff_t>(row),
                         moved.begin() + static_cast<std::ptrdiff_t>(2 * row),
                         q8.begin() + static_cast<std::ptrdiff_t>(2 * row)));
}

TEST(WriteHf, ReplacesAddsAHeadAndCopiesTheRest) {
  TemporaryFolder dir;
  TinyDecoder{.tied = true}.write_folder(dir / "source");
  std::filesystem::create_directory(dir / "out");
  const at::Tensor head = at::ones({61, 32}), norm = at::full({32}, 2.0, at::kBFloat16);
  write_hf_with_replacements(dir / "source",
                             {{"lm_head.weight", head}, {"model.norm.weight", norm}}, dir / "out",
                             silent_reporter());
  const HfFolder before = HfFolder::open(dir / "source"), after = HfFolder::open(dir / "out");
  EXPECT_EQ(parse_json(before.config_text(), "")["tie_word_embeddings"], true);
  EXPECT_EQ(parse_json(after.config_text(), "")["tie_word_embeddings"], false);
  ASSERT_NE(after.find("lm_head.weight"), nullptr);
  EXPECT_TRUE(std::ranges::equal(after.find("lm_head.weight")->data, tensor_bytes(head)));
  EXPECT_EQ(after.find("model.norm.weight")->dtype, Dtype::kBF16);
  EXPECT_EQ(after.tensors().size(), before.tensors().size() + 1);
  for (const StoredTensor& tensor : before.tensors()) {
    if (tensor.name != "model.norm.weight") {
      EXPECT_TRUE(std::ranges::equal(tensor.data, after.find(tensor.name)->data)) << tensor.name;
    }
  }
  EXPECT_TRUE(std::filesystem::exists(dir / "out/generation_config.json"));
  EXPECT_NO_THROW(DecoderCheckpoint::open(dir / "out"));
  EXPECT_THROW(write_hf_with_replacements(dir / "source", {{"model.norm.weight", at::ones({31})}},
                                          dir / "out", silent_reporter()),
               Error);
  EXPECT_THROW(write_hf_with_replacements(dir / "source", {{"nothing", at::ones({1})}}, dir / "out",
                                          silent_reporter()),
               Error);
}

TEST(ModelMetadata, ConfigOfAGgufFileReadsBackTheSame) {
  TemporaryFolder dir;
  for (const bool qwen : {false, true}) {
    TinyDecoder{.tied = qwen, .qwen2 = qwen}.write_gguf(
        dir / "in.gguf", GgufType::kF16, {{"tokenizer.ggml.eos_token_id", GgufValue::u32(2)}});
    const GgufFile file = GgufFile::open(dir / "in.gguf");
    const DecoderConfig config = parse_gguf_decoder_config(file);
    const std::string text = hf_config_text(config, file, Dtype::kBF16);
    EXPECT_NE(text.find("\"rms_norm_eps\": 1e-05"), std::string::npos) << text;
    const DecoderConfig back = parse_hf_decoder_config(text);
    EXPECT_EQ(back.family, config.family);
    EXPECT_EQ(back.num_kv_heads, config.num_kv_heads);
    EXPECT_EQ(back.head_dim, config.head_dim);
    EXPECT_EQ(back.window, config.window);
    EXPECT_EQ(back.tied_embeddings, config.tied_embeddings);
    EXPECT_EQ(back.attention_bias, config.attention_bias);
    EXPECT_EQ(back.eos_token_ids, config.eos_token_ids);
    EXPECT_EQ(back.torch_dtype, "bfloat16");
  }
}

TEST(ModelMetadata, WhatGgufCannotSayIsRefusedOrWarnedAbout) {
  DecoderConfig config = TinyDecoder{}.config();
  config.context_length = 4096;
  config.window = {0, 0, 0, 0};
  config.use_rope = {1, 1, 1, 1};
  std::vector<std::string> warnings;
  EXPECT_NO_THROW(gguf_model_metadata(config, "x", GgufType::kF16, warnings));
  EXPECT_TRUE(warnings.empty());
  config.window = {512, 512, 512, 512};
  gguf_model_metadata(config, "x", GgufType::kF16, warnings);
  EXPECT_EQ(warnings.size(), 1u);
  config.window = {512, 0, 512, 512};
  EXPECT_THROW(gguf_model_metadata(config, "x", GgufType::kF16, warnings), Error);
  config.window = {0, 0, 0, 0};
  config.use_rope = {1, 1, 1, 0};
  EXPECT_THROW(gguf_model_metadata(config, "x", GgufType::kF16, warnings), Error);
  EXPECT_THROW(gguf_file_type(GgufType::kQ6_K), Error);
}

TEST(ModelMetadata, Llama3RopeFactors) {
  DecoderConfig config = TinyDecoder{}.config();
  EXPECT_TRUE(gguf_rope_factors(config).empty());
  config.head_dim = 64;
  config.rope_theta = 500000;
  config.rope_scaling.kind = RopeScaling::Kind::kLlama3;  // the defaults are Llama 3.1's
  const auto tensors = gguf_rope_factors(config);
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].first, "rope_freqs.weight");
  const std::vector<float>& factors = tensors[0].second;
  ASSERT_EQ(factors.size(), 32u);
  EXPECT_EQ(factors.front(), 1);
  EXPECT_EQ(factors.back(), 8);
  // i = 34: wavelength 2 pi 500000^(34/64) = 6695.1, between 2048 and 8192: smooth = (8192/6693.9 -
  // 1) / 3.
  const double wavelength = 2 * M_PI * std::pow(500000.0, 34.0 / 64),
               smooth = (8192 / wavelength - 1) / 3;
  EXPECT_NEAR(wavelength, 6695.1, 0.1);
  EXPECT_NEAR(factors[17], 1 / ((1 - smooth) / 8 + smooth), 1e-5);
}

}  // namespace
}  // namespace espalier
