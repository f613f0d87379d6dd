// Adapter folders: configurations as PEFT means them, names as they are found in the wild, and
// every way a folder can be wrong.
#include "espalier/io/peft_folder.h"

#include <functional>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

Json minimal(std::int64_t rank = 4) {
  return {{"peft_type", "LORA"},
          {"task_type", "CAUSAL_LM"},
          {"r", rank},
          {"lora_alpha", 8},
          {"target_modules", {"q_proj", "v_proj"}}};
}

Error error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorKind::kInternal, "", "");
}

Error config_error(const Json& json) {
  return error_of([&] { parse_peft_config(json.dump(), "adapter_config.json"); });
}

void write_tensors(const std::filesystem::path& path, const Tensors& tensors) {
  std::vector<TensorPlan> plan;
  for (const auto& [name, tensor] : tensors)
    plan.push_back({name, to_dtype(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(path, plan);
  for (const auto& [name, tensor] : tensors) writer.append(tensor_bytes(tensor));
  writer.finish();
}

PeftFolder open_with(const TempFolder& folder, const Json& config, const Tensors& tensors) {
  folder.write("adapter_config.json", config.dump());
  write_tensors(folder / "adapter_model.safetensors", tensors);
  return PeftFolder::open(folder.path());
}

Tensors pair(const std::string& a, const std::string& b, std::int64_t rank = 4) {
  return {{a, at::randn({rank, 6})}, {b, at::randn({10, rank})}};
}

TEST(PeftConfig, ReadsEveryFieldAndWritesItBack) {
  Json json = minimal();
  json["base_model_name_or_path"] = "org/base";
  json["lora_dropout"] = 0.05;
  json["use_rslora"] = true;
  json["use_dora"] = true;
  json["modules_to_save"] = {"lm_head"};
  json["rank_pattern"] = {{"layers\\.3\\..*q_proj", 2}};
  json["alpha_pattern"] = {{"v_proj", 1.5}};
  json["layers_to_transform"] = {0, 3};
  json["layers_pattern"] = "layers";
  json["exclude_modules"] = {"layers.3.self_attn.v_proj"};
  json["some_future_key"] = 12;
  const PeftConfig config = parse_peft_config(json.dump(), "x");
  EXPECT_EQ(config.base_model, "org/base");
  EXPECT_EQ(config.rank_of("model.layers.3.self_attn.q_proj"), 2);
  EXPECT_EQ(config.rank_of("model.layers.13.self_attn.q_proj"), 4);
  EXPECT_EQ(config.alpha_of("model.layers.0.self_attn.v_proj"), 1.5);
  EXPECT_DOUBLE_EQ(config.scale_of("model.layers.0.self_attn.q_proj"), 8 / 2.0);
  EXPECT_TRUE(config.targets_module("model.layers.3.self_attn.q_proj"));
  EXPECT_FALSE(config.targets_module("model.layers.3.self_attn.v_proj"));
  EXPECT_FALSE(config.targets_module("model.layers.1.self_attn.q_proj"));
  EXPECT_FALSE(config.targets_module("lm_head", true));
  const std::string text = peft_config_text(config);
  EXPECT_EQ(text, peft_config_text(parse_peft_config(text, "y")));
  const Json written = parse_json(text, "y");
  EXPECT_EQ(written["lora_alpha"], 8);
  EXPECT_TRUE(written["lora_alpha"].is_number_integer());
  EXPECT_EQ(written["bias"], "none");
}

TEST(PeftConfig, PatternsMeanWhatPeftMeans) {
  // Outcomes of re.match(rf"(.*\.)?({key})$", name) in Python.
  EXPECT_TRUE(matches_module_suffix("q_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(matches_module_suffix("q_proj", "model.layers.0.self_attn.xq_proj"));
  EXPECT_TRUE(
      matches_module_suffix("layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(matches_module_suffix(".*q_proj", "model.layers.0.self_attn.xq_proj"));
  EXPECT_FALSE(matches_module_suffix("self_attn", "model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(matches_module_suffix("q_proj", "q_proj"));

  PeftConfig config;
  config.targets.regex = R"(model\.layers\.(1|2)\..*(?P<leaf>q|v)_proj)";
  EXPECT_TRUE(config.targets_module("model.layers.2.self_attn.v_proj"));
  EXPECT_FALSE(config.targets_module("model.layers.12.self_attn.v_proj"));
  EXPECT_FALSE(config.targets_module("x.model.layers.2.self_attn.v_proj"));
  config = {};
  config.all_linear = true;
  EXPECT_TRUE(config.targets_module("model.layers.2.mlp.up_proj"));
  EXPECT_FALSE(config.targets_module("lm_head", true));
  config.modules_to_save = {"mlp"};
  EXPECT_FALSE(config.targets_module("model.layers.2.mlp.up_proj"));
}

TEST(PeftConfig, RefusesFeaturesByName) {
  const auto refused = [](const char* key, Json value) {
    Json json = minimal();
    json[key] = std::move(value);
    const Error error = config_error(json);
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << key;
    EXPECT_NE(error.message().find(key), std::string::npos) << error.message();
    EXPECT_FALSE(error.hint_text().empty()) << key;
  };
  refused("peft_type", "IA3");
  refused("bias", "all");
  refused("bias", "lora_only");
  refused("use_qalora", true);
  refused("use_something_new", true);
  refused("lora_bias", true);
  refused("fan_in_fan_out", true);
  refused("init_lora_weights", "pissa_niter_4");
  refused("layer_replication", {{0, 4}, {2, 5}});
  refused("target_parameters", {"experts.gate_up_proj"});
  refused("trainable_token_indices", {1, 2});
  refused("arrow_config", {{"top_k", 3}});
  // Off is off.
  Json json = minimal();
  json["use_qalora"] = false, json["arrow_config"] = nullptr, json["eva_config"] = {{"rho", 2}};
  json["init_lora_weights"] = "gaussian", json["loftq_config"] = Json::object();
  EXPECT_NO_THROW(parse_peft_config(json.dump(), "x"));
}

TEST(PeftConfig, CollectsWrongValues) {
  Json json = minimal();
  json["r"] = 0, json["lora_alpha"] = "8", json["lora_dropout"] = 2, json["modules_to_save"] = 3;
  json["rank_pattern"] = {{"q_proj", -1}};
  const Error error = config_error(json);
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  for (const char* part : {"r is 0", "lora_alpha is \"8\"", "lora_dropout is 2",
                           "modules_to_save is 3", "rank_pattern.q_proj is -1"})
    EXPECT_NE(error.message().find(part), std::string::npos) << error.message();
  EXPECT_EQ(error_of([] { parse_peft_config("{", "x"); }).kind(), ErrorKind::kInput);
  EXPECT_EQ(error_of([] { parse_peft_config("[]", "x"); }).kind(), ErrorKind::kInput);
}

TEST(PeftConfig, HostilePatternsEnd) {
  PeftConfig config;
  config.targets.regex = "(a|aa)+$";
  EXPECT_EQ(error_of([&] { config.targets_module(std::string(64, 'a').append("b")); }).kind(),
            ErrorKind::kInput);
  config.targets.regex = "(unclosed";
  EXPECT_EQ(error_of([&] { config.targets_module("x"); }).kind(), ErrorKind::kInput);
}

TEST(PeftFolder, WritesWhatItReads) {
  const TempFolder folder;
  PeftConfig config = parse_peft_config(minimal().dump(), "x");
  config.modules_to_save = {"lm_head"};
  const Tensors tensors{{"model.layers.10.self_attn.q_proj.lora_A.weight", at::randn({4, 6})},
                        {"model.layers.10.self_attn.q_proj.lora_B.weight", at::randn({10, 4})},
                        {"model.layers.2.self_attn.q_proj.lora_A.weight", at::randn({4, 6})},
                        {"model.layers.2.self_attn.q_proj.lora_B.weight", at::randn({10, 4})},
                        {"lm_head.weight", at::randn({12, 6})}};
  write_peft_folder(folder.path(), config, tensors);
  const PeftFolder read = PeftFolder::open(folder.path());
  ASSERT_EQ(read.modules().size(), 2u);
  EXPECT_EQ(read.modules()[0].name, "model.layers.2.self_attn.q_proj");
  EXPECT_EQ(read.modules()[0].a.name,
            "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight");
  EXPECT_EQ(read.modules()[0].rank, 4);
  EXPECT_DOUBLE_EQ(read.modules()[0].scale, 2);
  ASSERT_EQ(read.saved().size(), 1u);
  EXPECT_EQ(read.saved()[0].first, "lm_head.weight");
  EXPECT_EQ(read.layers(), 11);
  EXPECT_EQ(read.tensor_count(), 5);
}

TEST(PeftFolder, TakesTheSpellingsFoundInTheWild) {
  const std::string module = "model.layers.0.self_attn.q_proj";
  for (const std::string prefix :
       {"base_model.model.model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj",
        "layers.0.self_attn.q_proj", "base_model.model.layers.0.self_attn.q_proj",
        "base_model.model.base_model.model.model.layers.0.self_attn.q_proj",
        "base_model.model.model.model.layers.0.self_attn.q_proj",
        "base_model.model.model.language_model.layers.0.self_attn.q_proj",
        "_orig_mod.base_model.model.model.layers.0.self_attn.q_proj"}) {
    for (const std::string tail : {".weight", ".default.weight"}) {
      const TempFolder folder;
      const PeftFolder read =
          open_with(folder, minimal(), pair(prefix + ".lora_A" + tail, prefix + ".lora_B" + tail));
      ASSERT_EQ(read.modules().size(), 1u);
      EXPECT_EQ(read.modules()[0].name, module) << prefix;
    }
  }
  const TempFolder folder;
  Json config = minimal();
  config["use_dora"] = true;
  Tensors tensors = pair("q_proj.lora_A.weight", "q_proj.lora_B.weight");
  tensors["q_proj.lora_magnitude_vector.default.weight"] = at::ones({10});
  tensors["base_model.model.lm_head.modules_to_save.default.weight"] = at::ones({3, 6});
  const PeftFolder read = open_with(folder, config, tensors);
  EXPECT_TRUE(read.modules()[0].magnitude.has_value());
  EXPECT_EQ(read.saved()[0].first, "lm_head.weight");
}

TEST(PeftFolder, ListsEveryProblem) {
  const TempFolder folder;
  Tensors tensors = pair("a.q_proj.lora_A.weight", "a.q_proj.lora_B.weight", 8);
  tensors["b.q_proj.lora_A.weight"] = at::randn({4, 6});
  tensors["c.q_proj.lora_A.weight"] = at::randn({4, 6});
  tensors["c.q_proj.lora_B.weight"] = at::randn({10, 3});
  tensors["d.lora_embedding_A"] = at::randn({4, 6});
  tensors["e.q_proj.lora_A.weight"] = at::zeros({4, 6}, at::kInt);
  tensors["a.q_proj.lora_magnitude_vector"] = at::ones({10});
  const Error error = error_of([&] { open_with(folder, minimal(), tensors); });
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  for (const char* part : {"a.q_proj.lora_A.weight has rank 8, but the config says 4",
                           "a.q_proj.lora_magnitude_vector is there, but use_dora is false",
                           "b.q_proj has lora_A but no lora_B",
                           "c.q_proj: lora_A [4, 6] and lora_B [10, 3] do not fit",
                           "d.lora_embedding_A is no low-rank tensor of a linear layer",
                           "e.q_proj.lora_A.weight is I32"})
    EXPECT_NE(error.message().find(part), std::string::npos) << part << "\n" << error.message();

  Json dora = minimal();
  dora["use_dora"] = true;
  EXPECT_NE(error_of([&] {
              open_with(folder, dora, pair("q_proj.lora_A.weight", "q_proj.lora_B.weight"));
            })
                .message()
                .find("no lora_magnitude_vector"),
            std::string::npos);
  EXPECT_NE(error_of([&] { open_with(folder, minimal(), {}); }).message().find("holds no tensors"),
            std::string::npos);
}

TEST(PeftFolder, TwoSpellingsOfOneTensorAreRefused) {
  const TempFolder folder;
  Tensors tensors = pair("q_proj.lora_A.weight", "q_proj.lora_B.weight");
  tensors["q_proj.lora_A.default.weight"] = at::randn({4, 6});
  EXPECT_NE(
      error_of([&] { open_with(folder, minimal(), tensors); }).message().find("appears twice"),
      std::string::npos);
}

TEST(PeftFolder, MissingFilesAndPicklesAreNamed) {
  const TempFolder folder;
  const Error none = error_of([&] { PeftFolder::open(folder.path()); });
  EXPECT_EQ(none.kind(), ErrorKind::kInput);
  EXPECT_NE(none.message().find("has no adapter_config.json"), std::string::npos);
  folder.write("adapter_config.json", minimal().dump());
  EXPECT_NE(error_of([&] { PeftFolder::open(folder.path()); })
                .message()
                .find("has no adapter_model.safetensors"),
            std::string::npos);
  folder.write("adapter_model.bin", "PK");
  const Error pickle = error_of([&] { PeftFolder::open(folder.path()); });
  EXPECT_EQ(pickle.kind(), ErrorKind::kUnsupported);
  EXPECT_NE(pickle.hint_text().find("safe_serialization"), std::string::npos);
}

TEST(PeftFolder, TruncatedFilesAreErrorsNotCrashes) {
  const TempFolder folder;
  open_with(folder, minimal(), pair("q_proj.lora_A.weight", "q_proj.lora_B.weight"));
  const std::string config = read_file(folder / "adapter_config.json"),
                    weights = read_file(folder / "adapter_model.safetensors");
  for (std::size_t length = 0; length < config.size(); ++length) {
    folder.write("adapter_config.json", config.substr(0, length));
    EXPECT_THROW(PeftFolder::open(folder.path()), Error) << length;
  }
  folder.write("adapter_config.json", config);
  for (std::size_t length = 0; length < weights.size(); length += 7) {
    folder.write("adapter_model.safetensors", weights.substr(0, length));
    EXPECT_THROW(PeftFolder::open(folder.path()), Error) << length;
  }
}

}  // namespace
}  // namespace espalier
