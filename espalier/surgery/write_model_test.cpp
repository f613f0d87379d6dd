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

DecoderConfig fixture_config(const std::string& family, const Json& changes = Json::object()) {
  Json json = read_json_file(std::filesystem::path(ESPALIER_SOURCE_DIR) /
                             "espalier/models/decoder/testdata" / family / "config.json");
  json.update(changes);
  return parse_hf_decoder_config(json.dump());
}

void expect_same(const DecoderConfig& a, const DecoderConfig& b, const std::string& what) {
  EXPECT_EQ(a.family, b.family) << what;
  EXPECT_EQ(a.num_layers, b.num_layers) << what;
  EXPECT_EQ(a.head_dim, b.head_dim) << what;
  EXPECT_EQ(a.rotary_size(), b.rotary_size()) << what;
  EXPECT_EQ(a.window, b.window) << what;
  EXPECT_EQ(a.tied_embeddings, b.tied_embeddings) << what;
  EXPECT_EQ(a.attention_bias, b.attention_bias) << what;
  const auto near = [&](double x, double y, const char* name) {
    EXPECT_NEAR(x, y, 1e-6 * std::max(1.0, std::abs(x))) << what << ": " << name;
  };
  near(a.rope_theta, b.rope_theta, "theta");
  near(a.local_rope_theta, b.local_rope_theta, "local theta");
  near(a.attention_scale, b.attention_scale, "scale");
  near(a.attention_softcap, b.attention_softcap, "attention cap");
  near(a.final_softcap, b.final_softcap, "final cap");
  EXPECT_EQ(a.rope_scaling.kind, b.rope_scaling.kind) << what;
  if (a.rope_scaling.kind == RopeScaling::Kind::kLinear)
    near(a.rope_scaling.factor, b.rope_scaling.factor, "factor");
  if (a.rope_scaling.kind != RopeScaling::Kind::kLongrope) return;
  near(a.rope_scaling.original_context, b.rope_scaling.original_context, "original context");
  near(a.rope_scaling.attention_factor, b.rope_scaling.attention_factor, "attention factor");
  EXPECT_EQ(a.rope_scaling.short_factors, b.rope_scaling.short_factors) << what;
  EXPECT_EQ(a.rope_scaling.long_factors, b.rope_scaling.long_factors) << what;
}

TEST(ModelMetadata, SettingsOfEveryFamilySurviveBothWays) {
  TemporaryFolder dir;
  const Json scalar = {{"query_pre_attn_scalar", 12}};  // the size of a head, as readers suppose
  const std::vector<std::pair<std::string, Json>> cases{
      {"gemma2", scalar},
      {"gemma3", scalar},  // every third layer, which a key has to say
      {"phi3", Json::object()},
      {"phi3", {{"rope_parameters", {{"rope_type", "default"}}}, {"sliding_window", nullptr}}},
      {"olmo2", Json::object()},
      {"qwen3", {{"use_sliding_window", false}, {"layer_types", nullptr}}},
  };
  for (const auto& [family, changes] : cases) {
    const DecoderConfig config = fixture_config(family, changes);
    std::vector<std::string> warnings;
    const auto metadata = gguf_model_metadata(config, family, GgufType::kF32, warnings);
    std::vector<GgufTensorPlan> plan;
    for (const TensorSpec& spec : decoder_tensor_specs(config))
      plan.push_back({gguf_name_of(spec.name, config.family), GgufType::kF32, spec.shape});
    const auto factors = gguf_rope_factors(config);
    for (const auto& [name, values] : factors)
      plan.push_back({name, GgufType::kF32, {static_cast<std::int64_t>(values.size())}});
    GgufWriter writer(dir / "m.gguf", metadata, plan);
    for (std::size_t i = 0; i < plan.size(); ++i) {
      std::int64_t count = 1;
      for (const std::int64_t size : plan[i].shape) count *= size;
      const bool factor = i + factors.size() >= plan.size();
      const std::vector<float> values =
          factor ? factors[i + factors.size() - plan.size()].second
                 : std::vector<float>(static_cast<std::size_t>(count), 0.5f);
      writer.append(std::as_bytes(std::span(values)));
    }
    writer.finish();
    const GgufFile file = GgufFile::open(dir / "m.gguf");
    const DecoderConfig read = parse_gguf_decoder_config(file);
    expect_same(read, config, family + " as GGUF");
    expect_same(parse_hf_decoder_config(hf_config_text(read, file, Dtype::kF32)), config,
                family + " back in config.json");
  }
}

TEST(ModelMetadata, WhatReadersOfGemmaSupposeIsRefusedOtherwise) {
  const auto refusal = [](const std::string& family, const Json& changes) {
    std::vector<std::string> warnings;
    Json all = {{"query_pre_attn_scalar", 12}};
    all.update(changes);
    try {
      gguf_model_metadata(fixture_config(family, all), "x", GgufType::kF16, warnings);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
      return error.to_string();
    }
    return std::string("nothing was refused");
  };
  const auto expect = [&](const std::string& family, const Json& changes, const char* part) {
    const std::string text = refusal(family, changes);
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect("gemma2", Json::object(), "nothing was refused");
  expect("gemma2", {{"query_pre_attn_scalar", 20}}, "divide scores by sqrt(12), this model by");
  expect("gemma2", {{"attn_logit_softcapping", nullptr}}, "a soft cap is off");
  expect("gemma2", {{"tie_word_embeddings", false}}, "an lm_head of its own");
  expect("gemma2", {{"layer_types", {"full_attention", "sliding_attention", "sliding_attention"}}},
         "no regular pattern");
  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8},
                       {"low_freq_factor", 1},
                       {"high_freq_factor", 4},
                       {"original_max_position_embeddings", 16}};
  expect("olmo2", {{"rope_parameters", llama3}}, "llama3 is not part of the GGUF architecture");
  const Json longrope = {{"rope_type", "longrope"},
                         {"short_factor", {1, 1, 1, 1}},
                         {"long_factor", {2, 2, 2, 2}},
                         {"original_max_position_embeddings", 16}};
  expect("olmo2", {{"rope_parameters", longrope}}, "written for phi3 only");
}

TEST(Transcode, OffsetsAreAddedAndTakenAway) {
  const std::vector<float> norm{0.5f, -0.25f, 0};
  const auto write = [](const StoredWeight& source, GgufType type, float offset) {
    std::vector<std::byte> out;
    transcode(source, type, {0, offset}, [&](std::span<const std::byte> piece) {
      out.insert(out.end(), piece.begin(), piece.end());
    });
    return out;
  };
  const auto above = write(float_weight(norm, {3}), GgufType::kF32, 1);
  EXPECT_EQ(as_floats(above), (std::vector<float>{1.5f, 0.75f, 1}));
  StoredWeight stored = float_weight(norm, {3});
  stored.data = above;
  stored.offset = 1;
  EXPECT_EQ(as_floats(write(stored, GgufType::kF32, 0)), norm);
  EXPECT_EQ(write(stored, GgufType::kF32, 1), above);
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
