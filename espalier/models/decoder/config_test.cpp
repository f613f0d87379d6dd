// config.json in old and new spelling, class defaults, and every refusal.
#include "espalier/models/decoder/config.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"

namespace espalier {
namespace {

Json base() {
  return Json::parse(
      R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 256})");
}

DecoderConfig parse(const Json& json) { return parse_hf_decoder_config(json.dump()); }

/// The error that `json` gives, or a failed test.
Error error_of(const Json& json) {
  try {
    parse(json);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "accepted: " << json.dump();
  return Error(ErrorKind::kInternal, "", "");
}

void expect_refused(const Json& json, ErrorKind kind, std::string_view part) {
  const Error error = error_of(json);
  EXPECT_EQ(error.kind(), kind) << error.to_string();
  EXPECT_NE(error.to_string().find(part), std::string::npos) << error.to_string();
}

TEST(DecoderConfigTest, SizesAndDefaults) {
  const DecoderConfig config = parse(base());
  EXPECT_EQ(config.family, DecoderFamily::kLlama);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_FALSE(config.tied_embeddings);
  EXPECT_EQ(config.window, std::vector<std::int64_t>(4, 0));
  EXPECT_EQ(config.use_rope, std::vector<std::uint8_t>(4, 1));
}

TEST(DecoderConfigTest, ParameterCountsOfPublishedModels) {
  // Llama-3.1-8B: block 218,112,000; head 525,336,576; whole model 8,030,261,248.
  Json json = base();
  json.update(Json::parse(
      R"({"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256})"));
  const DecoderConfig llama = parse(json);
  EXPECT_EQ(llama.parameters_per_layer(), 218'112'000);
  EXPECT_EQ(llama.parameters(), 8'030'261'248);
  // Qwen2-0.5B: 494,032,768, tied, with biases on q, k and v.
  json.update(Json::parse(
      R"({"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": true})"));
  EXPECT_EQ(parse(json).parameters(), 494'032'768);
}

TEST(DecoderConfigTest, RopeInBothSpellings) {
  Json old_style = base(), new_style = base();
  old_style["rope_theta"] = 500000.0;
  old_style["rope_scaling"] = Json::parse(
      R"({"type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})");
  new_style["rope_parameters"] = Json::parse(
      R"({"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192})");
  for (const Json& json : {old_style, new_style}) {
    const DecoderConfig config = parse(json);
    EXPECT_EQ(config.rope_theta, 500000);
    EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::kLlama3);
    EXPECT_EQ(config.rope_scaling.factor, 32);
    EXPECT_EQ(config.rope_scaling.original_context, 8192);
  }
  new_style["rope_parameters"] =
      Json::parse(R"({"rope_type": "linear", "factor": 4, "rope_theta": 10000})");
  EXPECT_EQ(parse(new_style).rope_scaling.kind, RopeScaling::Kind::kLinear);
  new_style["rope_parameters"] = Json::parse(R"({"rope_type": "default", "rope_theta": 77})");
  EXPECT_EQ(parse(new_style).rope_scaling.kind, RopeScaling::Kind::kNone);
  EXPECT_EQ(parse(new_style).rope_theta, 77);
}

TEST(DecoderConfigTest, DtypeInBothSpellings) {
  Json json = base();
  json["torch_dtype"] = "bfloat16";
  EXPECT_EQ(parse(json).torch_dtype, "bfloat16");
  json["dtype"] = "float16";
  EXPECT_EQ(parse(json).torch_dtype, "float16");
}

TEST(DecoderConfigTest, WindowsOfMistral) {
  Json json = base();
  json["model_type"] = "mistral";
  EXPECT_EQ(parse(json).window, std::vector<std::int64_t>(4, 4096))
      << "an absent key is the class's default";
  json["sliding_window"] = nullptr;
  EXPECT_EQ(parse(json).window, std::vector<std::int64_t>(4, 0));
  json["sliding_window"] = 12;
  EXPECT_EQ(parse(json).window, std::vector<std::int64_t>(4, 12));
}

TEST(DecoderConfigTest, WindowsOfQwen2) {
  Json json = base();
  json["model_type"] = "qwen2";
  json["sliding_window"] = 16;
  json["max_window_layers"] = 3;
  EXPECT_EQ(parse(json).window, std::vector<std::int64_t>(4, 0));
  EXPECT_TRUE(parse(json).attention_bias);
  EXPECT_FALSE(parse(json).attention_out_bias);
  json["use_sliding_window"] = true;
  EXPECT_EQ(parse(json).window, (std::vector<std::int64_t>{0, 0, 0, 16}));
  json["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention",
                         "full_attention"};
  EXPECT_EQ(parse(json).window, (std::vector<std::int64_t>{16, 0, 16, 0}));
  json["layer_types"] = {"full_attention"};
  expect_refused(json, ErrorKind::kInput, "layer_types has 1 entries, but num_hidden_layers is 4");
  json["layer_types"] = {"full_attention", "linear_attention", "full_attention", "full_attention"};
  expect_refused(json, ErrorKind::kUnsupported, "layer_types[1] is \"linear_attention\"");
}

TEST(DecoderConfigTest, LayersWithoutRope) {
  Json json = base();
  json["model_type"] = "smollm3";
  EXPECT_EQ(parse(json).use_rope, (std::vector<std::uint8_t>{1, 1, 1, 0}));
  EXPECT_EQ(parse(json).rope_theta, 2e6);
  EXPECT_TRUE(parse(json).tied_embeddings);
  json["no_rope_layers"] = {0, 1, 0, 1};
  EXPECT_EQ(parse(json).use_rope, (std::vector<std::uint8_t>{0, 1, 0, 1}));
}

TEST(DecoderConfigTest, EndTokens) {
  Json json = base();
  json["eos_token_id"] = 2;
  EXPECT_EQ(parse(json).eos_token_ids, (std::vector<std::int64_t>{2}));
  json["eos_token_id"] = {5, 6};
  EXPECT_EQ(parse(json).eos_token_ids, (std::vector<std::int64_t>{5, 6}));
}

TEST(DecoderConfigTest, AllProblemsAtOnce) {
  Json json = base();
  json.erase("hidden_size");
  json["vocab_size"] = "many";
  json["num_key_value_heads"] = 3;
  json["tie_word_embeddings"] = 1;
  const std::string text = error_of(json).to_string();
  EXPECT_EQ(error_of(json).kind(), ErrorKind::kInput);
  EXPECT_NE(text.find("hidden_size is missing"), std::string::npos) << text;
  EXPECT_NE(text.find("vocab_size is \"many\""), std::string::npos) << text;
  EXPECT_NE(text.find("tie_word_embeddings is 1, expected true or false"), std::string::npos)
      << text;
}

TEST(DecoderConfigTest, HostileNumbers) {
  for (const auto& [key, value] : {std::pair{"num_hidden_layers", "1000000000000"},
                                   {"hidden_size", "-1"},
                                   {"vocab_size", "1e300"},
                                   {"num_attention_heads", "0"},
                                   {"num_hidden_layers", "18446744073709551615"},
                                   {"head_dim", "3"},
                                   {"num_key_value_heads", "5"}}) {
    Json json = base();
    json[key] = Json::parse(value);
    EXPECT_EQ(error_of(json).kind(), ErrorKind::kInput) << key << " " << value;
  }
  EXPECT_THROW(parse_hf_decoder_config("[1]"), Error);
  EXPECT_THROW(parse_hf_decoder_config("{"), Error);
}

TEST(DecoderConfigTest, UnknownArithmeticIsNamed) {
  const auto with = [](const char* key, const char* value) {
    Json json = base();
    json[key] = Json::parse(value);
    return json;
  };
  expect_refused(with("model_type", "\"gpt2\""), ErrorKind::kUnsupported, "gpt2");
  expect_refused(with("model_type", "\"gpt2\""), ErrorKind::kUnsupported, "llama, mistral, qwen2");
  for (const char* moe : {"\"mixtral\"", "\"qwen3_moe\"", "\"deepseek_v3\""})
    expect_refused(with("model_type", moe), ErrorKind::kUnsupported, "mixture of experts");
  expect_refused(with("num_kv_shared_layers", "2"), ErrorKind::kUnsupported,
                 "num_kv_shared_layers is 2");
  Json nested;
  nested["model_type"] = "gemma3";
  nested["text_config"] = base();
  expect_refused(nested, ErrorKind::kUnsupported, "inside a multimodal model");
  expect_refused(with("attn_logit_softcapping", "50.0"), ErrorKind::kUnsupported,
                 "attn_logit_softcapping");
  expect_refused(with("architectures", "[\"LlamaForSequenceClassification\"]"),
                 ErrorKind::kUnsupported, "LlamaForSequenceClassification");
  expect_refused(with("hidden_act", "\"gelu\""), ErrorKind::kUnsupported, "hidden_act is \"gelu\"");
  expect_refused(with("quantization_config", "{\"quant_method\": \"gptq\"}"),
                 ErrorKind::kUnsupported, "gptq");
  expect_refused(with("num_local_experts", "8"), ErrorKind::kUnsupported, "num_local_experts");
  expect_refused(with("rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 4}"),
                 ErrorKind::kUnsupported, "yarn");
  expect_refused(with("rope_scaling", "{\"type\": \"dynamic\", \"factor\": 4}"),
                 ErrorKind::kUnsupported, "dynamic");
  expect_refused(with("partial_rotary_factor", "0.5"), ErrorKind::kUnsupported,
                 "partial_rotary_factor");
}

}  // namespace
}  // namespace espalier
