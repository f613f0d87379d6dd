// Names between the two formats, row order of rotary heads, layer numbers.
#include "espalier/models/decoder/tensor_names.h"

#include <gtest/gtest.h>

#include "espalier/models/decoder/checkpoint.h"

namespace espalier {
namespace {

TEST(TensorNamesTest, BothWays) {
  EXPECT_EQ(gguf_name_of("model.layers.3.self_attn.q_proj.weight"), "blk.3.attn_q.weight");
  EXPECT_EQ(gguf_name_of("model.layers.12.self_attn.o_proj.bias"), "blk.12.attn_output.bias");
  EXPECT_EQ(gguf_name_of("model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(hf_name_of("blk.0.ffn_norm.weight"), "model.layers.0.post_attention_layernorm.weight");
  EXPECT_EQ(hf_name_of("output.weight"), "lm_head.weight");
  const std::string post = "model.layers.1.post_attention_layernorm.weight";
  EXPECT_EQ(gguf_name_of(post, DecoderFamily::kGemma2), "blk.1.post_attention_norm.weight");
  EXPECT_EQ(gguf_name_of(post, DecoderFamily::kPhi3), "blk.1.ffn_norm.weight");
  EXPECT_EQ(gguf_name_of("model.layers.1.mlp.gate_up_proj.weight", DecoderFamily::kPhi3),
            "blk.1.ffn_up.weight");
  EXPECT_EQ(gguf_name_of("model.layers.1.self_attn.q_norm.weight", DecoderFamily::kQwen3),
            "blk.1.attn_q_norm.weight");
  EXPECT_EQ(hf_name_of("blk.0.post_ffw_norm.weight", DecoderFamily::kOlmo2),
            "model.layers.0.post_feedforward_layernorm.weight");
  for (const TensorSpec& spec : layer_tensor_specs(DecoderConfig{})) {
    const std::string name = layer_prefix(7) + spec.name;
    EXPECT_EQ(hf_name_of(gguf_name_of(name)), name);
  }
}

TEST(TensorNamesTest, NoCounterpart) {
  for (const char* name :
       {"", "model.layers.", "model.layers.x.mlp.up_proj.weight",
        "model.layers.01.mlp.up_proj.weight", "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.up_proj.scale", "model.layers.99999999999999999999.mlp.up_proj.weight",
        "blk.1.attn_q.weight"}) {
    EXPECT_EQ(gguf_name_of(name), "") << name;
  }
  EXPECT_EQ(hf_name_of("rope_freqs.weight"), "");
}

TEST(TensorNamesTest, RopeRowsOfTheSpec) {
  EXPECT_EQ(gguf_rope_rows(2, 4), (std::vector<std::int64_t>{0, 2, 1, 3, 4, 6, 5, 7}));
  EXPECT_EQ(gguf_rope_rows(1, 6), (std::vector<std::int64_t>{0, 3, 1, 4, 2, 5}));
}

TEST(TensorNamesTest, LayerOfTensor) {
  EXPECT_EQ(layer_of_tensor("model.layers.31.input_layernorm.weight"), 31);
  EXPECT_EQ(layer_of_tensor("blk.4.ffn_up.weight"), 4);
  EXPECT_EQ(layer_of_tensor("model.norm.weight"), -1);
  EXPECT_EQ(layer_of_tensor("model.layers.-1.x"), -1);
}

}  // namespace
}  // namespace espalier
