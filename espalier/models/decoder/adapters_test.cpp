// Adapters on a tiny decoder: where they go, files back and forth, NF4 bases, and every way an
// adapter can fail to fit.
#include "espalier/models/decoder/adapters.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"

#include "tests/support/random_decoder.h"

namespace espalier {
namespace {

using testing_support::random_decoder;
using testing_support::RandomCheckpoint;
using testing_support::tiny_config;

PeftConfig lora(bool dora = false) {
  PeftConfig config;
  config.rank = 4, config.alpha = 8, config.dora = dora;
  config.targets.names = default_target_modules();
  return config;
}

/// Gives every adapter an effect.
void disturb(Decoder& model) {
  at::manual_seed(3);
  for_each_adapter_tensor(model, [](const std::string& name, at::Tensor& t) {
    if (name.ends_with("lora_B.weight")) t.normal_(0, 0.05);
    if (name.ends_with("magnitude_vector")) t.mul_(1.2);
  });
}

at::Tensor ids() { return at::arange(24, at::kLong).view({2, 12}); }

TEST(Adapters, DefaultModulesAreTheBlocksLinearLayers) {
  const auto names = [](const char* family) {
    return default_target_modules(
        DecoderCheckpoint::open(std::filesystem::path(ESPALIER_SOURCE_DIR) /
                                "espalier/models/decoder/testdata" / family)
            ->config());
  };
  for (const char* family : {"llama", "qwen3", "gemma3", "olmo2"})
    EXPECT_EQ(names(family), default_target_modules()) << family;
  EXPECT_EQ(names("phi3"),
            (std::vector<std::string>{"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}));
}

TEST(Adapters, GoWhereTheConfigurationSays) {
  Decoder model = random_decoder(tiny_config());
  PeftConfig config = lora();
  EXPECT_EQ(adapter_targets(model, config).size(), 4u * 7);
  config.targets.names = {"q_proj", "v_proj"};
  config.layers = {1, 3};
  config.rank_pattern = {{"layers.3.*q_proj", 2}};
  EXPECT_EQ(attach_adapters(model, config, 0), 4);
  EXPECT_EQ(model.block(3).self_attn.q_proj.adapter->rank(), 2);
  EXPECT_EQ(model.block(3).self_attn.q_proj.adapter->scale, 4);
  EXPECT_EQ(model.block(1).self_attn.q_proj.adapter->rank(), 4);
  EXPECT_EQ(model.block(0).self_attn.q_proj.adapter, nullptr);
  EXPECT_EQ(model.block(1).mlp.up_proj.adapter, nullptr);
  std::vector<std::string> names;
  for_each_adapter_tensor(model, [&](const std::string& n, at::Tensor&) { names.push_back(n); });
  EXPECT_EQ(names.size(), 8u);
  EXPECT_EQ(names.front(), "model.layers.1.self_attn.q_proj.lora_A.weight");
  remove_adapters(model);
  EXPECT_EQ(model.block(1).self_attn.q_proj.adapter, nullptr);
}

TEST(Adapters, NothingToAdaptIsAnErrorThatNamesALayer) {
  Decoder model = random_decoder(tiny_config());
  PeftConfig config = lora();
  config.targets.names = {"query"};
  try {
    attach_adapters(model, config, 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(error.message().find("none of the model's 28 linear layers matches"),
              std::string::npos);
    EXPECT_NE(error.hint_text().find("model.layers.0.self_attn.q_proj"), std::string::npos);
  }
}

TEST(Adapters, FilesGiveBackTheSameModel) {
  for (const bool dora : {false, true}) {
    const TempFolder folder;
    PeftConfig config = lora(dora);
    config.modules_to_save = {"lm_head"};
    Decoder model = random_decoder(tiny_config(3, /*tied=*/true));
    attach_adapters(model, config, 5);
    disturb(model);
    model.set_head(model.head_weight() * 1.1);
    write_peft_folder(folder.path(), config, adapter_tensors(model, config));

    Decoder again = random_decoder(tiny_config(3, true));
    load_adapters(again, PeftFolder::open(folder.path()));
    EXPECT_FALSE(again.config().tied_embeddings);
    EXPECT_TRUE(again.forward(ids()).equal(model.forward(ids()))) << dora;
    EXPECT_FALSE(again.forward(ids()).equal(random_decoder(tiny_config(3)).forward(ids())));
  }
}

TEST(Adapters, WhatDoesNotFitIsListedWithTheAdaptersDepth) {
  const TempFolder folder;
  Decoder deep = random_decoder(tiny_config(4));
  attach_adapters(deep, lora(), 0);
  write_peft_folder(folder.path(), lora(), adapter_tensors(deep, lora()));
  Decoder shallow = random_decoder(tiny_config(3));
  try {
    load_adapters(shallow, PeftFolder::open(folder.path()));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(error.message().find("the model has no linear layer model.layers.3."),
              std::string::npos)
        << error.message();
    EXPECT_EQ(error.hint_text(), "the adapter was trained on 4 layers, the model has 3");
  }
  DecoderConfig wide = tiny_config(4);
  wide.intermediate_size = 128;
  Decoder other = random_decoder(wide);
  try {
    load_adapters(other, PeftFolder::open(folder.path()));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(
        error.message().find("fits a layer of [96, 64], model.layers.0.mlp.gate_proj is [128, 64]"),
        std::string::npos)
        << error.message();
  }
  EXPECT_EQ(other.block(0).mlp.gate_proj.adapter, nullptr);
}

TEST(Adapters, GradientsReachEveryAdapterAndNothingElse) {
  Decoder model = random_decoder(tiny_config());
  attach_adapters(model, lora(true), 0);
  disturb(model);
  std::vector<at::Tensor> leaves;
  for_each_adapter_tensor(model, [&](const std::string&, at::Tensor& t) {
    t.set_requires_grad(true);
    leaves.push_back(t);
  });
  const auto grads = torch::autograd::grad({model.forward(ids()).square().mean()}, leaves);
  for (const at::Tensor& grad : grads) EXPECT_GT(grad.abs().sum().item<double>(), 0);
}

TEST(Adapters, NF4BasesLoadBlockByBlockAndTrain) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(tiny_config());
  Nf4Summary summary;
  Decoder model =
      load_nf4_decoder(checkpoint, at::kFloat, at::kCPU, {}, silent_reporter(), &summary);
  EXPECT_EQ(summary.layers, 28);
  EXPECT_LT(summary.bytes_after, summary.bytes_before / 5);
  EXPECT_FALSE(model.block(0).mlp.up_proj.weight.defined());

  Decoder late = random_decoder(tiny_config());
  quantize_nf4(late, {}, silent_reporter());
  EXPECT_TRUE(late.forward(ids()).equal(model.forward(ids())));
  EXPECT_FALSE(late.forward(ids()).equal(random_decoder(tiny_config()).forward(ids())));

  attach_adapters(model, lora(), 0);
  EXPECT_TRUE(model.forward(ids()).allclose(late.forward(ids()), 1e-4, 1e-4));
  at::Tensor& a = model.block(0).self_attn.q_proj.adapter->a;
  model.block(0).self_attn.q_proj.adapter->b.normal_(0, 0.05);
  a.set_requires_grad(true);
  EXPECT_TRUE(torch::autograd::grad({model.forward(ids()).sum()}, {a})[0].defined());
}

}  // namespace
}  // namespace espalier
