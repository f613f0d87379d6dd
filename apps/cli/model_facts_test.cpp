// inspect's facts and memory arithmetic on tiny models whose numbers are computed by hand.
#include "apps/cli/model_facts.h"

#include <gtest/gtest.h>

#include "espalier/base/temp_folder_internal.h"
#include "espalier/models/decoder/test_files_internal.h"

namespace espalier::cli {
namespace {

constexpr const char* kConfig =
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8,
  "intermediate_size":12,"num_hidden_layers":5,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":2,
  "vocab_size":20,"max_position_embeddings":64,"rms_norm_eps":1e-5,"tie_word_embeddings":true,"torch_dtype":"bfloat16"})";

// q and o: 8 x 8, k and v: 4 x 8, gate, up, down: 12 x 8, two norms of 8.
constexpr std::int64_t kLayer = 2 * 64 + 2 * 32 + 3 * 96 + 2 * 8;
constexpr std::int64_t kEmbedding = 20 * 8;
constexpr std::int64_t kParameters = 5 * kLayer + kEmbedding + 8;

DecoderConfig config() { return parse_hf_decoder_config(kConfig); }

void write_hf(const TempFolder& folder) {
  decoder_test::write_folder(folder.path(), kConfig,
                             decoder_test::random_tensors(config(), at::kBFloat16));
}

TEST(ModelFacts, OfAFolder) {
  const TempFolder folder;
  write_hf(folder);
  const ModelFacts facts = read_model_facts({ModelLocation::Kind::kHfFolder, folder.path()});
  EXPECT_EQ(facts.format, "hf");
  EXPECT_EQ(facts.architecture, "LlamaForCausalLM");
  EXPECT_EQ(facts.layers, 5);
  EXPECT_EQ(facts.layer_parameters, kLayer);
  EXPECT_EQ(facts.parameters, kParameters);
  EXPECT_EQ(facts.vocab_size, 20);
  EXPECT_EQ(facts.context_length, 64);
  EXPECT_TRUE(facts.tied_embeddings);
  EXPECT_TRUE(facts.decoder.has_value());
  ASSERT_EQ(facts.dtypes.size(), 1u);
  EXPECT_EQ(facts.dtypes.at("BF16").elements, kParameters);
  EXPECT_EQ(facts.dtypes.at("BF16").bytes, 2 * kParameters);
  EXPECT_EQ(facts.weight_bytes, 2 * kParameters);
  EXPECT_EQ(facts.files, 1);
  EXPECT_FALSE(facts.tokenizer.found);
}

TEST(ModelFacts, OfAGguf) {
  const TempFolder folder;
  decoder_test::write_gguf(folder / "m.gguf", config(), "llama",
                           decoder_test::random_tensors(config()));
  const ModelFacts facts = read_model_facts({ModelLocation::Kind::kGguf, folder / "m.gguf"});
  EXPECT_EQ(facts.format, "gguf");
  EXPECT_EQ(facts.architecture, "llama");
  EXPECT_EQ(facts.layers, 5);
  EXPECT_EQ(facts.parameters, kParameters);
  EXPECT_EQ(facts.layer_parameters, kLayer);
  EXPECT_EQ(facts.vocab_size, 20);
  EXPECT_TRUE(facts.tied_embeddings);
  EXPECT_EQ(facts.dtypes.at("F32").bytes, 4 * kParameters);
}

TEST(ModelFacts, AnUnknownArchitectureIsStillDescribed) {
  const TempFolder folder;
  write_hf(folder);
  folder.write(
      "config.json",
      R"({"architectures":["GPT2LMHeadModel"],"model_type":"gpt2","n_layer":12,"n_embd":768,
                                  "n_head":12,"n_positions":1024,"vocab_size":50257})");
  const ModelFacts facts = read_model_facts({ModelLocation::Kind::kHfFolder, folder.path()});
  EXPECT_EQ(facts.architecture, "GPT2LMHeadModel");
  EXPECT_EQ(facts.layers, 12);
  EXPECT_EQ(facts.head_dim, 64);
  EXPECT_EQ(facts.num_kv_heads, 12);
  EXPECT_EQ(facts.context_length, 1024);
  EXPECT_FALSE(facts.decoder.has_value());
  EXPECT_FALSE(facts.decoder_problem.empty());
}

TEST(EstimateMemory, ByHand) {
  const TempFolder folder;
  write_hf(folder);
  const MemoryEstimate memory =
      estimate_memory(read_model_facts({ModelLocation::Kind::kHfFolder, folder.path()}));
  EXPECT_EQ(memory.weights_as_stored, 2 * kParameters);
  EXPECT_EQ(memory.weights_float32, 4 * kParameters);
  EXPECT_EQ(memory.weights_bfloat16, 2 * kParameters);
  // keys and values x 5 layers x 2 heads of 2
  EXPECT_EQ(memory.kv_per_1k_float32, 4 * 2 * 5 * 4 * 1024);
  EXPECT_EQ(memory.kv_at_context_bfloat16, 2 * 2 * 5 * 4 * 64);
  EXPECT_EQ(memory.finetune_full, 16 * kParameters);
  EXPECT_EQ(memory.partial_last, 3);
  EXPECT_EQ(memory.partial_trainable, 3 * kLayer + 8 + kEmbedding);
  // The tied head becomes a matrix of its own.
  EXPECT_EQ(memory.finetune_partial,
            4 * (kParameters + kEmbedding) + 12 * memory.partial_trainable);
}

TEST(EstimateMemory, SlidingWindowsKeepNoMoreThanTheirWidth) {
  ModelFacts facts;
  facts.layers = 2;
  facts.num_kv_heads = 1;
  facts.head_dim = 8;
  facts.context_length = 4096;
  facts.decoder = DecoderConfig{};
  facts.decoder->window = {256, 0};
  const MemoryEstimate memory = estimate_memory(facts);
  EXPECT_EQ(memory.kv_per_1k_bfloat16, 2 * 16 * (256 + 1024));
  EXPECT_EQ(memory.kv_at_context_bfloat16, 2 * 16 * (256 + 4096));
}

}  // namespace
}  // namespace espalier::cli
