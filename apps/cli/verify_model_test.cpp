// verify on whole models and on models broken in one way each.
#include "apps/cli/verify_model.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/models/decoder/test_files_internal.h"

#include "apps/cli/scan_values.h"

namespace espalier::cli {
namespace {

using Status = VerifyCheck::Status;

constexpr const char* kConfig =
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8,
  "intermediate_size":12,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":2,
  "vocab_size":5,"max_position_embeddings":64,"rms_norm_eps":1e-5,"tie_word_embeddings":true,"eos_token_id":4})";
constexpr const char* kTokenizer =
    R"({"version":"1.0","truncation":null,"padding":null,"normalizer":null,
  "added_tokens":[{"id":4,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
  "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
  "post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
  "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
           "fuse_unk":false,"byte_fallback":false,"vocab":{"a":0,"b":1,"c":2,"ab":3},"merges":["a b"]}})";

decoder_test::Tensors tensors() {
  return decoder_test::random_tensors(parse_hf_decoder_config(kConfig));
}

void write_model(const TempFolder& folder, const decoder_test::Tensors& weights,
                 const std::string& config = kConfig) {
  decoder_test::write_folder(folder.path(), config, weights);
  folder.write("tokenizer.json", kTokenizer);
}

Verification verify_folder(const TempFolder& folder, bool deep = false) {
  return verify_model({ModelLocation::Kind::kHfFolder, folder.path()}, deep, silent_reporter(),
                      never_stop());
}

const VerifyCheck& check_of(const Verification& result, const std::string& name) {
  for (const VerifyCheck& check : result.checks) {
    if (check.name == name) return check;
  }
  ADD_FAILURE() << "no check " << name;
  static const VerifyCheck none;
  return none;
}

const Consumer& consumer_of(const Verification& result, const std::string& name) {
  for (const Consumer& consumer : result.consumers) {
    if (consumer.name == name) return consumer;
  }
  ADD_FAILURE() << "no consumer " << name;
  static const Consumer none;
  return none;
}

testing::AssertionResult has_problem(const Verification& result, const std::string& part) {
  std::string all;
  for (const std::string& line : result.all(Status::kProblem)) {
    if (line.find(part) != std::string::npos) return testing::AssertionSuccess();
    all += "\n" + line;
  }
  return testing::AssertionFailure() << "no problem holds \"" << part << "\"; there are:" << all;
}

TEST(VerifyModel, AWholeFolder) {
  const TempFolder folder;
  write_model(folder, tensors());
  const Verification result = verify_folder(folder, true);
  EXPECT_TRUE(result.whole()) << result.all(Status::kProblem).front();
  EXPECT_TRUE(result.all(Status::kWarning).empty()) << result.all(Status::kWarning).front();
  EXPECT_EQ(result.architecture, "LlamaForCausalLM");
  EXPECT_GT(result.scanned_elements, 0);
  EXPECT_EQ(check_of(result, "values").status, Status::kOk);
  EXPECT_TRUE(consumer_of(result, "espalier").loads);
  EXPECT_TRUE(consumer_of(result, "transformers").loads);
  EXPECT_TRUE(consumer_of(result, "vLLM").loads);
  EXPECT_FALSE(consumer_of(result, "llama.cpp").loads);
  EXPECT_NE(consumer_of(result, "llama.cpp").reason.find("espalier convert"), std::string::npos);
}

TEST(VerifyModel, WithoutDeepTheValuesAreSkippedAndSaySo) {
  const TempFolder folder;
  write_model(folder, tensors());
  const Verification result = verify_folder(folder);
  EXPECT_EQ(check_of(result, "values").status, Status::kSkipped);
  EXPECT_EQ(result.scanned_elements, 0);
}

TEST(VerifyModel, NanAndInfAreFoundOnlyWhenReadDeep) {
  const TempFolder folder;
  auto weights = tensors();
  weights["model.layers.1.mlp.up_proj.weight"][3][2] = std::numeric_limits<float>::quiet_NaN();
  weights["model.norm.weight"] = weights["model.norm.weight"].to(at::kBFloat16);
  weights["model.norm.weight"][0] = std::numeric_limits<float>::infinity();
  write_model(folder, weights);
  EXPECT_TRUE(verify_folder(folder).whole());
  const Verification result = verify_folder(folder, true);
  EXPECT_TRUE(has_problem(result, "model.layers.1.mlp.up_proj.weight holds 1 NaN and 0 Inf"));
  EXPECT_TRUE(has_problem(result, "model.norm.weight holds 0 NaN and 1 Inf"));
}

TEST(VerifyModel, AllZeroMatricesAreAWarning) {
  const TempFolder folder;
  auto weights = tensors();
  weights["model.layers.0.mlp.up_proj.weight"].zero_();
  write_model(folder, weights);
  const Verification result = verify_folder(folder, true);
  EXPECT_TRUE(result.whole());
  EXPECT_EQ(check_of(result, "values").status, Status::kWarning);
}

TEST(VerifyModel, TensorsThatDoNotFitTheConfigAreAllListed) {
  const TempFolder folder;
  auto weights = tensors();
  weights.erase("model.layers.1.mlp.up_proj.weight");
  weights["model.norm.weight"] = at::ones({9});
  weights["stray.weight"] = at::ones({1});
  write_model(folder, weights);
  const Verification result = verify_folder(folder);
  EXPECT_TRUE(has_problem(result, "model.layers.1.mlp.up_proj.weight is missing"));
  EXPECT_TRUE(has_problem(result, "model.norm.weight has shape [9], expected [8]"));
  EXPECT_TRUE(has_problem(result, "stray.weight belongs to nothing"));
  for (const Consumer& consumer : result.consumers) EXPECT_FALSE(consumer.loads) << consumer.name;
}

TEST(VerifyModel, TheTokenizerMustBeThereAndFit) {
  const TempFolder folder;
  write_model(folder, tensors());
  std::filesystem::remove(folder / "tokenizer.json");
  const Verification missing = verify_folder(folder);
  EXPECT_TRUE(has_problem(missing, "neither tokenizer.json nor tokenizer.model"));
  EXPECT_FALSE(consumer_of(missing, "vLLM").loads);
  std::string larger = kTokenizer;
  larger.replace(larger.find("\"c\":2"), 5, "\"c\":7");
  folder.write("tokenizer.json", larger);
  EXPECT_TRUE(has_problem(verify_folder(folder),
                          "the tokenizer has 8 tokens, but the embedding only 5 rows"));
  folder.write("tokenizer.json", "{");
  EXPECT_FALSE(verify_folder(folder).whole());
}

TEST(VerifyModel, AWrongTotalSizeIsOnlyAWarning) {
  const TempFolder folder;
  write_model(folder, tensors());
  std::string map;
  for (const auto& [name, tensor] : tensors())
    map += (map.empty() ? "" : ",") + ("\"" + name + "\":\"model.safetensors\"");
  folder.write("model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":1},\"weight_map\":{" + map + "}}");
  const Verification result = verify_folder(folder);
  EXPECT_TRUE(result.whole());
  EXPECT_EQ(check_of(result, "index").status, Status::kWarning);
}

TEST(VerifyModel, BrokenFilesAreProblemsNotExceptions) {
  const TempFolder folder;
  write_model(folder, tensors());
  std::filesystem::resize_file(folder / "model.safetensors",
                               std::filesystem::file_size(folder / "model.safetensors") - 4);
  EXPECT_TRUE(has_problem(verify_folder(folder), "the file holds only"));
  std::filesystem::remove(folder / "model.safetensors");
  // Without weights, config and tokenizer are still looked at.
  folder.write("tokenizer.json", "{");
  const Verification none = verify_folder(folder);
  EXPECT_TRUE(has_problem(none, "has no weights"));
  EXPECT_TRUE(has_problem(none, "tokenizer: "));
  EXPECT_EQ(check_of(none, "config").status, Status::kOk);
  ASSERT_EQ(none.consumers.size(), 4u);
  for (const Consumer& consumer : none.consumers) EXPECT_FALSE(consumer.loads) << consumer.name;
}

TEST(VerifyModel, MetadataThatOlderTransformersNeeds) {
  const TempFolder folder;
  write_model(folder, tensors());
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : tensors())
    plan.push_back({name, Dtype::kF32, tensor.sizes().vec()});
  SafetensorsWriter writer(folder / "model.safetensors", plan, {});
  const auto weights = tensors();
  for (const auto& [name, tensor] : weights) writer.append(tensor_bytes(tensor));
  writer.finish();
  const Verification result = verify_folder(folder);
  EXPECT_TRUE(result.whole());
  EXPECT_TRUE(consumer_of(result, "transformers").loads);
  EXPECT_NE(consumer_of(result, "transformers").reason.find("\"format\": \"pt\""),
            std::string::npos);
}

TEST(VerifyModel, AnUnknownArchitectureIsCheckedAsFarAsPossible) {
  const TempFolder folder;
  auto weights = tensors();
  write_model(folder, weights, R"({"architectures":["OtherForCausalLM"],"model_type":"other"})");
  const Verification result = verify_folder(folder);
  EXPECT_TRUE(result.whole());
  EXPECT_EQ(check_of(result, "config").status, Status::kWarning);
  EXPECT_FALSE(consumer_of(result, "espalier").loads);
  std::erase_if(weights, [](const auto& entry) {
    return entry.first.find("layers.0.") != std::string::npos;
  });
  write_model(folder, weights, R"({"architectures":["OtherForCausalLM"],"model_type":"other"})");
  EXPECT_TRUE(has_problem(verify_folder(folder), "layer 0 has no tensors, but layer 1 has"));
}

TEST(VerifyModel, AGgufWithoutTokenizer) {
  const TempFolder folder;
  decoder_test::write_gguf(folder / "m.gguf", parse_hf_decoder_config(kConfig), "llama", tensors());
  const Verification result = verify_model({ModelLocation::Kind::kGguf, folder / "m.gguf"}, true,
                                           silent_reporter(), never_stop());
  EXPECT_EQ(result.all(Status::kProblem).size(), 1u);
  EXPECT_TRUE(has_problem(result, "no tokenizer (key tokenizer.ggml.tokens)"));
  EXPECT_EQ(check_of(result, "values").status, Status::kOk);
  EXPECT_FALSE(consumer_of(result, "llama.cpp").loads);
}

TEST(ScanValues, EveryKindOfElement) {
  const std::vector<double> doubles{1, std::numeric_limits<double>::quiet_NaN(),
                                    -std::numeric_limits<double>::infinity()};
  const std::vector<std::uint8_t> e4m3{0x7f, 0xff, 0x7e, 0x00}, e5m2{0x7c, 0xfc, 0x7d, 0x01};
  std::vector<std::uint8_t> q8(34, 1);
  q8[0] = 0x00;
  q8[1] = 0x7e;  // a NaN scale spoils the block
  const auto item = [](std::string name, auto& values, Dtype dtype) {
    ScanItem result;
    result.name = std::move(name);
    result.data = std::as_bytes(std::span(values));
    result.dtype = dtype;
    result.elements = static_cast<std::int64_t>(result.data.size()) / dtype_size(dtype);
    return result;
  };
  std::vector<ScanItem> items{item("doubles", doubles, Dtype::kF64),
                              item("e4m3", e4m3, Dtype::kF8E4M3),
                              item("e5m2", e5m2, Dtype::kF8E5M2), item("bytes", e4m3, Dtype::kU8)};
  ScanItem quantised;
  quantised.name = "q8";
  quantised.data = std::as_bytes(std::span(q8));
  quantised.elements = 32;
  quantised.is_gguf = true;
  quantised.type = GgufType::kQ8_0;
  items.push_back(quantised);
  const auto findings = scan_values(items, silent_reporter(), never_stop());
  ASSERT_EQ(findings.size(), 4u);
  EXPECT_EQ(findings[0].nan, 1);
  EXPECT_EQ(findings[0].inf, 1);
  EXPECT_EQ(findings[1].nan, 2);
  EXPECT_EQ(findings[1].inf, 0);
  EXPECT_EQ(findings[2].nan, 1);
  EXPECT_EQ(findings[2].inf, 2);
  EXPECT_EQ(findings[3].name, "q8");
  EXPECT_EQ(findings[3].nan, 32);
}

}  // namespace
}  // namespace espalier::cli
