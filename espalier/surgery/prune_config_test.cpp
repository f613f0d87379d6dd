// What becomes of config.json, key by key, and the plans that a config forbids.
#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/surgery/prune_files.h"

namespace espalier {
namespace {

Json pruned(const char* config, const std::vector<std::int64_t>& kept, std::int64_t num_layers) {
  return Json::parse(prune_hf_config(config, kept, num_layers));
}

Error refusal(const char* config, const std::vector<std::int64_t>& kept, std::int64_t num_layers) {
  try {
    prune_hf_config(config, kept, num_layers);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "not refused: " << config;
  return Error(ErrorKind::kInternal, "", "");
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(PruneConfig, CountListsIndicesAndUnknownKeys) {
  const Json config = pruned(R"({
    "architectures": ["Qwen2ForCausalLM"], "zzz_unknown": {"a": [1, 2, 3, 4]}, "num_hidden_layers": 4,
    "layer_types": ["full_attention", "full_attention", "sliding_attention", "sliding_attention"],
    "per_layer_ffn": [10, 20, 30, 40], "eos_token_id": [1, 2, 3, 4], "mlp_only_layers": [1, 3], "max_window_layers": 2,
    "rope_scaling": {"short_factor": [1, 2, 3, 4]}, "torch_dtype": "bfloat16"})",
                             {0, 2, 3}, 4);
  EXPECT_EQ(config["num_hidden_layers"], 3);
  EXPECT_EQ(config["layer_types"].dump(),
            R"(["full_attention","sliding_attention","sliding_attention"])");
  EXPECT_EQ(config["per_layer_ffn"].dump(), "[10,30,40]");
  EXPECT_EQ(config["eos_token_id"].size(), 4u);
  EXPECT_EQ(config["mlp_only_layers"].dump(), "[2]");
  EXPECT_EQ(config["max_window_layers"], 1);
  EXPECT_EQ(config["zzz_unknown"]["a"].size(), 4u);
  EXPECT_EQ(config["rope_scaling"]["short_factor"].size(), 4u);
  // Order of keys is kept.
  EXPECT_EQ(config.begin().key(), "architectures");
}

TEST(PruneConfig, PeriodsAreWrittenOut) {
  const Json gemma = pruned(
      R"({"model_type": "gemma2", "num_hidden_layers": 5, "sliding_window": 4096})", {0, 2, 3}, 5);
  EXPECT_EQ(gemma["layer_types"].dump(),
            R"(["sliding_attention","sliding_attention","full_attention"])");
  const Json smol =
      pruned(R"({"model_type": "smollm3", "num_hidden_layers": 8, "no_rope_layer_interval": 4})",
             {0, 3, 4, 7}, 8);
  EXPECT_EQ(smol["no_rope_layers"].dump(), "[1,0,1,0]");
  // Mistral has a window on every layer and no pattern: nothing to write out.
  EXPECT_FALSE(
      pruned(R"({"model_type": "mistral", "num_hidden_layers": 3, "sliding_window": 4096})", {0, 2},
             3)
          .contains("layer_types"));
}

TEST(PruneConfig, NestedTextConfig) {
  const Json config =
      pruned(R"({"text_config": {"num_hidden_layers": 3, "layer_types": ["a", "b", "c"]},
                                 "vision_config": {"num_hidden_layers": 3}})",
             {0, 2}, 3);
  EXPECT_EQ(config["text_config"]["num_hidden_layers"], 2);
  EXPECT_EQ(config["text_config"]["layer_types"].dump(), R"(["a","c"])");
  EXPECT_EQ(config["vision_config"]["num_hidden_layers"], 3);
}

TEST(PruneConfig, InconsistentConfigsNameKeyAndBothNumbers) {
  const Error list =
      refusal(R"({"num_hidden_layers": 4, "layer_types": ["a", "b", "c"]})", {0, 1}, 4);
  EXPECT_EQ(list.kind(), ErrorKind::kInput);
  EXPECT_TRUE(has(list.message(), "layer_types has 3 entries, but num_hidden_layers is 4"));
  EXPECT_FALSE(list.hint_text().empty());
  EXPECT_TRUE(has(refusal(R"({"num_hidden_layers": 5})", {0, 1}, 4).message(),
                  "num_hidden_layers is 5, but"));
  EXPECT_TRUE(has(refusal(R"({"hidden_size": 5})", {0, 1}, 4).message(), "missing"));
  EXPECT_TRUE(has(refusal("[1]", {0, 1}, 4).message(), "not a JSON object"));
  EXPECT_TRUE(
      has(refusal(R"({"num_hidden_layers": 4, "mlp_only_layers": [4]})", {0, 1}, 4).message(),
          "names layer 4"));
  EXPECT_EQ(refusal(R"({"num_hidden_layers": 4})", {2, 1}, 4).kind(), ErrorKind::kUsage);
}

TEST(PruneConfig, SharedKeysAndValuesMustStayTogether) {
  const char* gemma3n = R"({"num_hidden_layers": 6, "num_kv_shared_layers": 2,
    "layer_types": ["full", "sliding", "sliding", "full", "sliding", "full"]})";
  // Layers 4 and 5 read layer 2 (sliding) and 3 (full).
  const Error shared = refusal(gemma3n, {0, 1, 3, 4, 5}, 6);
  EXPECT_EQ(shared.kind(), ErrorKind::kUnsupported);
  EXPECT_TRUE(has(shared.message(), "layers 2-5 must stay together")) << shared.message();
  EXPECT_TRUE(has(refusal(gemma3n, {0, 1, 2, 3, 4}, 6).message(), "layer 5 would go"));
  EXPECT_EQ(pruned(gemma3n, {0, 2, 3, 4, 5}, 6)["num_hidden_layers"], 5);

  const char* sources = R"({"num_hidden_layers": 4, "kv_source_layers": [0, 1, 1, 3]})";
  EXPECT_TRUE(
      has(refusal(sources, {0, 2, 3}, 4).message(), "layer 2 uses the keys and values of layer 1"));
  EXPECT_EQ(pruned(sources, {1, 2, 3}, 4)["kv_source_layers"].dump(), "[0,0,2]");

  const char* cla = R"({"num_hidden_layers": 4, "use_cla": true, "cla_share_factor": 2})";
  EXPECT_TRUE(has(refusal(cla, {0, 1, 2}, 4).message(), "layers 2-3 share keys and values"));
  EXPECT_NO_THROW(pruned(cla, {0, 1}, 4));
}

TEST(PruneConfig, MixturePatternsMustKeepTheirPeriod) {
  const char* moe = R"({"num_hidden_layers": 8, "decoder_sparse_step": 2})";
  const Error broken = refusal(moe, {0, 2, 3, 4, 5, 6, 7}, 8);
  EXPECT_TRUE(has(broken.message(), "groups of 2")) << broken.message();
  EXPECT_TRUE(has(broken.hint_text(), "2-3"));
  EXPECT_NO_THROW(pruned(moe, {0, 1, 4, 5, 6, 7}, 8));
  EXPECT_TRUE(
      has(refusal(R"({"num_hidden_layers": 8, "attn_layer_period": 4, "attn_layer_offset": 2})",
                  {0, 1, 3, 4, 5, 6, 7}, 8)
              .message(),
          "attn_layer_period"));
}

}  // namespace
}  // namespace espalier
