// Opening folders and GGUF files: names, shapes, gaps, zero copy, row order, and one clear message
// for each mistake.
#include "espalier/models/decoder/checkpoint.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/models/decoder/test_files_internal.h"

namespace espalier {
namespace {

using namespace decoder_test;

Json tiny_json(const std::string& family = "llama") {
  return {{"model_type", family},     {"hidden_size", 16},
          {"intermediate_size", 24},  {"num_hidden_layers", 3},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2},
          {"vocab_size", 20},         {"max_position_embeddings", 32},
          {"rms_norm_eps", 1e-5},     {"sliding_window", nullptr}};
}

struct Tiny {
  ScratchFolder scratch;
  Json json = tiny_json();
  DecoderConfig config = parse_hf_decoder_config(json.dump());
  Tensors tensors = random_tensors(config);
  std::filesystem::path folder() {
    write_folder(scratch / "model", json.dump(), tensors);
    return scratch / "model";
  }
};

std::string message_of(const std::filesystem::path& path, ErrorKind kind = ErrorKind::kInput) {
  try {
    DecoderCheckpoint::open(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.to_string();
    return error.to_string();
  }
  ADD_FAILURE() << "opened " << path;
  return {};
}

void expect_in(const std::string& text, std::string_view part) {
  EXPECT_NE(text.find(part), std::string::npos) << "missing \"" << part << "\" in\n" << text;
}

TEST(CheckpointTest, FolderTensorsAreViewsOfTheFile) {
  Tiny tiny;
  const auto checkpoint = DecoderCheckpoint::open(tiny.folder());
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const at::Tensor a = checkpoint->load(name, at::kFloat, at::kCPU),
                   b = checkpoint->load(name, at::kFloat, at::kCPU);
  EXPECT_EQ(a.data_ptr(), b.data_ptr()) << "a copy was made";
  EXPECT_TRUE(a.equal(tiny.tensors[name]));
  checkpoint->release_layer(1);
  EXPECT_TRUE(a.equal(tiny.tensors[name])) << "released pages come back";
  EXPECT_TRUE(
      checkpoint->load(name, at::kBFloat16, at::kCPU).equal(tiny.tensors[name].to(at::kBFloat16)));
  EXPECT_TRUE(checkpoint->has(name));
  EXPECT_FALSE(checkpoint->has("lm_head.bias"));
  EXPECT_THROW(checkpoint->load("lm_head.bias", at::kFloat, at::kCPU), Error);
}

TEST(CheckpointTest, TensorsOutliveTheCheckpoint) {
  Tiny tiny;
  const at::Tensor kept =
      DecoderCheckpoint::open(tiny.folder())->load("model.norm.weight", at::kFloat, at::kCPU);
  EXPECT_TRUE(kept.equal(tiny.tensors["model.norm.weight"]));
}

TEST(CheckpointTest, GgufGivesTheSameTensors) {
  for (const std::string arch : {"llama", "qwen2"}) {
    Tiny tiny;
    tiny.json = tiny_json(arch);
    tiny.config = parse_hf_decoder_config(tiny.json.dump());
    tiny.tensors = random_tensors(tiny.config);
    write_gguf(tiny.scratch / "m.gguf", tiny.config, arch, tiny.tensors, {}, arch == "llama");
    const auto checkpoint = DecoderCheckpoint::open(tiny.scratch / "m.gguf");
    EXPECT_EQ(checkpoint->config().num_layers, 3);
    EXPECT_EQ(checkpoint->config().attention_bias, arch == "qwen2");
    EXPECT_FALSE(checkpoint->config().tied_embeddings);
    for (const auto& [name, tensor] : tiny.tensors)
      EXPECT_TRUE(checkpoint->load(name, at::kFloat, at::kCPU).equal(tensor))
          << arch << " " << name;
  }
}

TEST(CheckpointTest, LayersThatTheConfigDoesNotKnow) {
  Tiny tiny;
  tiny.json["num_hidden_layers"] = 5;
  const std::string text = message_of(tiny.folder());
  expect_in(text, "the config says 5 layers, but the checkpoint holds layers 0-2");
  EXPECT_EQ(text.find("is missing"), std::string::npos) << "one line is enough:\n" << text;
  tiny.json["num_hidden_layers"] = 2;
  expect_in(message_of(tiny.folder()),
            "the config says 2 layers, but the checkpoint holds layers 0-2");
}

TEST(CheckpointTest, LayerGap) {
  Tiny tiny;
  std::erase_if(tiny.tensors, [](const auto& entry) { return layer_of_tensor(entry.first) == 1; });
  expect_in(message_of(tiny.folder()), "holds layers 0, 2");
}

TEST(CheckpointTest, EveryProblemAtOnce) {
  Tiny tiny;
  tiny.tensors.erase("model.layers.2.self_attn.k_proj.weight");
  tiny.tensors.erase("lm_head.weight");
  tiny.tensors["model.norm.weight"] = at::ones({17});
  tiny.tensors["model.layers.0.self_attn.q_norm.weight"] = at::ones({4});
  tiny.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] =
      at::ones({2});  // old exporters' buffer: ignored
  const std::string text = message_of(tiny.folder());
  expect_in(text, "4 problems");
  expect_in(text, "model.layers.2.self_attn.k_proj.weight is missing");
  expect_in(text, "lm_head.weight is missing and tie_word_embeddings is false");
  expect_in(text, "model.norm.weight has shape [17], expected [16]");
  expect_in(text, "model.layers.0.self_attn.q_norm.weight belongs to nothing");
  expect_in(text, "while: opening the decoder");
  expect_in(text, "hint:");
}

TEST(CheckpointTest, TiedHeadMayLieInTheFile) {
  Tiny tiny;
  tiny.json["tie_word_embeddings"] = true;
  EXPECT_TRUE(DecoderCheckpoint::open(tiny.folder())->config().tied_embeddings);
}

TEST(CheckpointTest, IntegerWeightsAreRefused) {
  Tiny tiny;
  tiny.tensors["model.norm.weight"] = at::ones({16}, at::kInt);
  expect_in(message_of(tiny.folder()), "model.norm.weight is I32, expected");
}

TEST(CheckpointTest, EndTokensOfTheGenerationConfigWin) {
  Tiny tiny;
  tiny.json["eos_token_id"] = 2;
  const auto folder = tiny.folder();
  EXPECT_EQ(DecoderCheckpoint::open(folder)->config().eos_token_ids,
            (std::vector<std::int64_t>{2}));
  std::ofstream(folder / "generation_config.json") << R"({"eos_token_id": [2, 7]})";
  EXPECT_EQ(DecoderCheckpoint::open(folder)->config().eos_token_ids,
            (std::vector<std::int64_t>{2, 7}));
}

TEST(CheckpointTest, MissingPath) {
  expect_in(message_of("/nonexistent/model"), "/nonexistent/model");
}

TEST(GgufConfigTest, PerLayerArraysMustAgree) {
  Tiny tiny;
  const std::vector<std::int32_t> equal{2, 2, 2}, different{2, 1, 2};
  write_gguf(tiny.scratch / "a.gguf", tiny.config, "llama", tiny.tensors,
             {{"llama.attention.head_count_kv", GgufValue::i32s(equal)}});
  EXPECT_EQ(DecoderCheckpoint::open(tiny.scratch / "a.gguf")->config().num_kv_heads, 2);
  write_gguf(tiny.scratch / "b.gguf", tiny.config, "llama", tiny.tensors,
             {{"llama.attention.head_count_kv", GgufValue::i32s(different)}});
  expect_in(message_of(tiny.scratch / "b.gguf", ErrorKind::kUnsupported),
            "llama.attention.head_count_kv differs between layers");
}

TEST(GgufConfigTest, Llama3FactorsAreRecognised) {
  Tiny tiny;
  tiny.config.rope_theta = 500000;
  // head_dim 4: frequencies 1 and 500000^-0.5; wavelengths 6.28 and 4443, the second between 8192/4
  // and 8192.
  const double smooth = (8192 / (2 * M_PI * std::sqrt(500000.0)) - 1) / 3;
  tiny.tensors["rope_freqs.weight"] =
      at::tensor({1.0, 1 / ((1 - smooth) / 32 + smooth)}, at::kFloat);
  write_gguf(tiny.scratch / "a.gguf", tiny.config, "llama", tiny.tensors);
  const DecoderConfig read = DecoderCheckpoint::open(tiny.scratch / "a.gguf")->config();
  EXPECT_EQ(read.rope_factors.size(), 2u);
  EXPECT_EQ(read.rope_scaling.kind, RopeScaling::Kind::kNone)
      << "the largest factor is not 32, so nothing can be concluded";
  tiny.tensors["rope_freqs.weight"] = at::tensor({1.0, 0.0}, at::kFloat);
  write_gguf(tiny.scratch / "b.gguf", tiny.config, "llama", tiny.tensors);
  expect_in(message_of(tiny.scratch / "b.gguf"), "rope_freqs.weight holds 0");
}

TEST(GgufConfigTest, Refusals) {
  Tiny tiny;
  const auto text = [&](std::string key, GgufValue value, ErrorKind kind) {
    write_gguf(tiny.scratch / "x.gguf", tiny.config, "llama", tiny.tensors,
               {{std::move(key), std::move(value)}});
    return message_of(tiny.scratch / "x.gguf", kind);
  };
  expect_in(text("llama.rope.scaling.type", GgufValue::string("yarn"), ErrorKind::kUnsupported),
            "yarn");
  expect_in(text("llama.expert_count", GgufValue::u32(8), ErrorKind::kUnsupported),
            "expert_count is 8");
  expect_in(text("llama.rope.dimension_count", GgufValue::u32(2), ErrorKind::kUnsupported),
            "partial rotary");
  expect_in(text("llama.block_count", GgufValue::u32(0), ErrorKind::kInput),
            "llama.block_count is out of range");
  expect_in(text("llama.block_count", GgufValue::u32(4000000000u), ErrorKind::kInput),
            "llama.block_count is out of range");
  expect_in(text("llama.attention.head_count", GgufValue::u32(3), ErrorKind::kInput),
            "not a multiple");
  expect_in(text("general.architecture", GgufValue::string("gptneox"), ErrorKind::kUnsupported),
            "gptneox");
  expect_in(text("general.architecture", GgufValue::string("qwen3moe"), ErrorKind::kUnsupported),
            "mixtures of experts are not supported");
}

TEST(GgufConfigTest, SharedKeysAndValuesAreTheReasonWhateverTheArchitecture) {
  Tiny tiny;
  for (const std::string arch : {"gemma3", "gemma3n"}) {
    write_gguf(tiny.scratch / "x.gguf", tiny.config, arch, tiny.tensors,
               {{arch + ".attention.shared_kv_layers", GgufValue::u32(1)}});
    expect_in(message_of(tiny.scratch / "x.gguf", ErrorKind::kUnsupported),
              arch +
                  ".attention.shared_kv_layers is set: the last layers use keys and values of "
                  "earlier ones");
  }
}

TEST(GgufConfigTest, WindowsOfGemma3) {
  Tiny tiny;
  Json json = tiny_json("gemma3_text");
  json["num_hidden_layers"] = 7;
  json["head_dim"] = 4;
  const DecoderConfig config = parse_hf_decoder_config(json.dump());
  const Tensors tensors = random_tensors(config);
  using Windows = std::vector<std::int64_t>;
  const auto windows = [&](std::vector<std::pair<std::string, GgufValue>> keys) {
    write_gguf(tiny.scratch / "x.gguf", config, "gemma3", tensors, std::move(keys), false);
    return DecoderCheckpoint::open(tiny.scratch / "x.gguf")->config().window;
  };
  const std::string key = "gemma3.attention.sliding_window";
  EXPECT_EQ(windows({}), Windows(7, 0)) << "no key, no window";
  EXPECT_EQ(windows({{key, GgufValue::u32(0)}}), Windows(7, 0));
  EXPECT_EQ(windows({{key, GgufValue::u32(9)}}), (Windows{9, 9, 9, 9, 9, 0, 9}));
  EXPECT_EQ(windows({{key, GgufValue::u32(9)}, {key + "_pattern", GgufValue::u32(2)}}),
            (Windows{9, 0, 9, 0, 9, 0, 9}));
}

TEST(GgufConfigTest, WindowsOfOtherFamilies) {
  Tiny tiny;
  const auto open = [&](const std::string& arch, std::uint32_t window) {
    const DecoderConfig config = parse_hf_decoder_config(tiny_json(arch).dump());
    write_gguf(tiny.scratch / "x.gguf", config, arch, random_tensors(config),
               {{arch + ".attention.sliding_window", GgufValue::u32(window)}}, false);
    return DecoderCheckpoint::open(tiny.scratch / "x.gguf")->config();
  };
  EXPECT_EQ(open("phi3", 0).window, std::vector<std::int64_t>(3, 0)) << "as converters say none";
  EXPECT_EQ(open("phi3", 8).window, std::vector<std::int64_t>(3, 8));
  EXPECT_EQ(open("olmo2", 0).window, std::vector<std::int64_t>(3, 0));
  try {
    open("olmo2", 8);
    FAIL() << "Olmo 3 was taken for Olmo 2";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    expect_in(error.to_string(), "that is Olmo 3");
  }
}

TEST(GgufConfigTest, PeriodsOfWindows) {
  EXPECT_EQ(find_window_period({1, 1, 0, 1, 1, 0, 1}, 6), 3);
  EXPECT_EQ(find_window_period({1, 1, 1}, 6), 6) << "the usual one where it fits";
  EXPECT_EQ(find_window_period({1, 1, 1}, 2), 4) << "all have one";
  EXPECT_EQ(find_window_period({0, 0}, 2), 1) << "none has one";
  EXPECT_EQ(find_window_period({0, 1}, 2), std::nullopt);
  EXPECT_EQ(find_window_period({1, 0, 1, 1, 0}, 2), std::nullopt);
}

}  // namespace
}  // namespace espalier
