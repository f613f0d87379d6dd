// Merging on tiny models: what is written computes what model plus adapter compute, everything else
// stays as it was, and what does not fit is refused before anything is written.
#include "espalier/surgery/merge_adapter.h"

#include <cstring>
#include <functional>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/models/decoder/adapters.h"
#include "espalier/surgery/delta.h"
#include "espalier/surgery/prune_files.h"
#include "espalier/surgery/remap_adapter.h"
#include "espalier/tensor/tensor_view.h"

#include "tests/support/tiny_model.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;

at::Tensor ids() { return at::arange(14, at::kLong).view({1, 14}); }

class MergeTest : public testing::Test {
 protected:
  PeftConfig config(bool dora = false) const {
    PeftConfig out;
    out.rank = 4, out.alpha = 8, out.dora = dora;
    out.targets.names = default_target_modules();
    return out;
  }

  /// An adapter with an effect for the model at `base`; its logits are returned.
  at::Tensor write_adapter(const fs::path& base, const fs::path& adapter, const PeftConfig& how) {
    Decoder model = Decoder::load(base, at::kFloat, at::kCPU);
    attach_adapters(model, how, 1);
    at::manual_seed(4);
    for_each_adapter_tensor(model, [](const std::string& name, at::Tensor& t) {
      if (name.ends_with("lora_B.weight")) t.normal_(0, 0.1);
      if (name.ends_with("magnitude_vector")) t.mul_(1.1);
    });
    if (!how.modules_to_save.empty()) model.set_head(model.head_weight() * 1.5);
    fs::create_directories(adapter);
    write_peft_folder(adapter, how, adapter_tensors(model, how));
    return model.forward(ids());
  }

  MergeSummary merge(const fs::path& base, const fs::path& adapter, const fs::path& out,
                     const MergeOptions& options = {}) {
    if (fs::is_directory(base)) fs::create_directories(out);
    return merge_adapter(base, adapter, out, options, silent_reporter());
  }

  at::Tensor logits(const fs::path& model) {
    return Decoder::load(model, at::kFloat, at::kCPU).forward(ids());
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

  TinyDecoder tiny_;
  TemporaryFolder folder_;
};

TEST_F(MergeTest, FolderComputesWhatModelPlusAdapterCompute) {
  for (const bool dora : {false, true}) {
    const std::string tag = dora ? "dora" : "lora";
    tiny_.write_folder(folder_ / "base");
    const at::Tensor expected =
        write_adapter(folder_ / "base", folder_ / ("a" + tag), config(dora));
    const MergeSummary summary =
        merge(folder_ / "base", folder_ / ("a" + tag), folder_ / ("out" + tag));
    EXPECT_EQ(summary.low_rank, 28);
    EXPECT_EQ(summary.adapter_tensors, dora ? 84 : 56);
    EXPECT_EQ(summary.left_out, 0);
    EXPECT_LT(summary.relative_error, 1e-5);
    EXPECT_TRUE(logits(folder_ / ("out" + tag)).allclose(expected, 1e-4, 1e-4));
    EXPECT_FALSE(logits(folder_ / "base").allclose(expected, 1e-2, 1e-2));
    const HfFolder before = HfFolder::open(folder_ / "base"),
                   after = HfFolder::open(folder_ / ("out" + tag));
    EXPECT_EQ(before.config_text(), after.config_text());
    ASSERT_EQ(before.tensors().size(), after.tensors().size());
    for (const StoredTensor& t : before.tensors()) {
      const bool same =
          std::memcmp(t.data.data(), after.find(t.name)->data.data(), t.data.size()) == 0;
      EXPECT_EQ(same, t.name.find("_proj") == std::string::npos) << t.name;
    }
    EXPECT_TRUE(fs::exists(folder_ / ("out" + tag) / "generation_config.json"));
  }
}

TEST_F(MergeTest, SavedHeadUntiesATiedModel) {
  tiny_.tied = true;
  tiny_.write_folder(folder_ / "base");
  PeftConfig how = config();
  how.modules_to_save = {"lm_head"};
  const at::Tensor expected = write_adapter(folder_ / "base", folder_ / "adapter", how);
  const MergeSummary summary = merge(folder_ / "base", folder_ / "adapter", folder_ / "out");
  EXPECT_TRUE(summary.untied_head);
  EXPECT_EQ(summary.replaced, 1);
  EXPECT_TRUE(logits(folder_ / "out").allclose(expected, 1e-4, 1e-4));
  EXPECT_FALSE(DecoderCheckpoint::open(folder_ / "out")->config().tied_embeddings);
}

TEST_F(MergeTest, GgufKeepsWhatTheAdapterDoesNotTouch) {
  tiny_.write_gguf(folder_ / "base.gguf", GgufType::kQ4_1);
  PeftConfig how = config();
  how.targets.names = {"q_proj", "down_proj"};
  const at::Tensor expected = write_adapter(folder_ / "base.gguf", folder_ / "adapter", how);
  MergeOptions options;
  options.type = GgufType::kF32;
  merge(folder_ / "base.gguf", folder_ / "adapter", folder_ / "exact.gguf", options);
  EXPECT_TRUE(logits(folder_ / "exact.gguf").allclose(expected, 1e-4, 1e-4));
  const MergeSummary summary =
      merge(folder_ / "base.gguf", folder_ / "adapter", folder_ / "out.gguf");
  EXPECT_GT(summary.relative_error, 0);
  const GgufFile before = GgufFile::open(folder_ / "base.gguf"),
                 after = GgufFile::open(folder_ / "out.gguf");
  for (const GgufTensor& t : before.tensors()) {
    const GgufTensor* merged = after.find_tensor(t.name);
    ASSERT_NE(merged, nullptr) << t.name;
    const bool touched =
        t.name.find("attn_q.") != std::string::npos || t.name.find("ffn_down") != std::string::npos;
    EXPECT_EQ(merged->type, touched ? GgufType::kQ8_0 : t.type) << t.name;
    if (!touched) {
      EXPECT_EQ(0, std::memcmp(t.data.data(), merged->data.data(), t.data.size())) << t.name;
    }
  }
}

TEST_F(MergeTest, AdapterOfTheUnprunedModelMovesOntoTheKeptLayers) {
  tiny_.write_folder(folder_ / "base");
  const std::vector<std::int64_t> kept{0, 2, 3};
  fs::create_directories(folder_ / "pruned");
  prune_hf_folder(folder_ / "base", kept, folder_ / "pruned", silent_reporter(), never_stop());
  write_adapter(folder_ / "base", folder_ / "adapter", config());
  Decoder whole = Decoder::load(folder_ / "base", at::kFloat, at::kCPU);
  load_adapters(whole, PeftFolder::open(folder_ / "adapter"));
  const at::Tensor expected = whole.with_layers(kept).forward(ids());

  // Without a record nothing says which layers went.
  const Error refused =
      error_of([&] { merge(folder_ / "pruned", folder_ / "adapter", folder_ / "no"); });
  EXPECT_EQ(refused.kind(), ErrorKind::kInput);
  EXPECT_NE(
      refused.message().find("model.layers.3.mlp.down_proj.lora_A.weight: the model has no tensor"),
      std::string::npos)
      << refused.message();
  EXPECT_NE(refused.hint_text().find("the adapter was trained on 4 layers, the model has 3"),
            std::string::npos)
      << refused.hint_text();

  MergeOptions named;
  named.kept = kept;
  const MergeSummary by_name =
      merge(folder_ / "pruned", folder_ / "adapter", folder_ / "named", named);
  EXPECT_EQ(by_name.left_out, 14);
  EXPECT_TRUE(logits(folder_ / "named").allclose(expected, 1e-4, 1e-4));

  write_file_atomically(folder_ / "pruned/espalier_pruning.json",
                        "{\"layers_before\": 4, \"kept\": [0, 2, 3]}");
  const MergeSummary summary = merge(folder_ / "pruned", folder_ / "adapter", folder_ / "out");
  EXPECT_EQ(summary.remapped, kept);
  EXPECT_TRUE(logits(folder_ / "out").allclose(expected, 1e-4, 1e-4));
  EXPECT_TRUE(fs::exists(folder_ / "out/espalier_pruning.json"));
  MergeOptions off;
  off.remap = false;
  EXPECT_EQ(error_of([&] {
              merge(folder_ / "pruned", folder_ / "adapter", folder_ / "no2", off);
            }).kind(),
            ErrorKind::kInput);
  named.kept = {{0, 1}};
  EXPECT_EQ(error_of([&] {
              merge(folder_ / "pruned", folder_ / "adapter", folder_ / "no3", named);
            }).kind(),
            ErrorKind::kUsage);
}

TEST_F(MergeTest, WrongShapesAndTwiceChangedTensorsAreNamed) {
  tiny_.write_folder(folder_ / "base");
  TinyDecoder wide = tiny_;
  wide.intermediate = 96;
  wide.write_folder(folder_ / "wide");
  write_adapter(folder_ / "wide", folder_ / "adapter", config());
  const Error error =
      error_of([&] { merge(folder_ / "base", folder_ / "adapter", folder_ / "out"); });
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  EXPECT_NE(error.message().find(
                "are for a weight of [96, 32], model.layers.0.mlp.gate_proj.weight is [64, 32]"),
            std::string::npos)
      << error.message();
  EXPECT_TRUE(fs::is_empty(folder_ / "out"));
}

TEST_F(MergeTest, EmbeddingAloneOnATiedModelIsRefused) {
  tiny_.tied = true;
  tiny_.write_folder(folder_ / "base");
  PeftConfig how = config();
  how.modules_to_save = {"embed_tokens"};
  Decoder model = Decoder::load(folder_ / "base", at::kFloat, at::kCPU);
  attach_adapters(model, how, 1);
  fs::create_directories(folder_ / "adapter");
  write_peft_folder(folder_ / "adapter", how, adapter_tensors(model, how));
  const Error error =
      error_of([&] { merge(folder_ / "base", folder_ / "adapter", folder_ / "out"); });
  EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
  EXPECT_NE(error.message().find("head shares the embedding"), std::string::npos);
}

TEST_F(MergeTest, DeltaAppliesToTheUnprunedAndToThePrunedModel) {
  tiny_.write_folder(folder_ / "base");
  const std::vector<std::int64_t> kept{0, 1, 3};
  fs::create_directories(folder_ / "pruned");
  prune_hf_folder(folder_ / "base", kept, folder_ / "pruned", silent_reporter(), never_stop());
  const at::Tensor norm = at::full({32}, 1.5), up = at::randn({64, 32});
  write_delta(folder_ / "delta.safetensors",
              {{"model.norm.weight", norm}, {"model.layers.2.mlp.up_proj.weight", up}},
              {"base", 4, kept});
  Decoder model = Decoder::load(folder_ / "pruned", at::kFloat, at::kCPU);
  model.norm().weight = norm;
  model.block(2).mlp.up_proj.weight = up;
  const at::Tensor expected = model.forward(ids());
  for (const char* source : {"base", "pruned"}) {
    const fs::path out = folder_ / (std::string("from-") + source);
    const MergeSummary summary = merge(folder_ / source, folder_ / "delta.safetensors", out);
    EXPECT_EQ(summary.replaced, 2);
    EXPECT_TRUE(logits(out).allclose(expected, 1e-4, 1e-4)) << source;
    EXPECT_EQ(DecoderCheckpoint::open(out)->config().num_layers, 3);
  }
  TinyDecoder deep = tiny_;
  deep.layers = 6;
  deep.write_folder(folder_ / "deep");
  const Error error =
      error_of([&] { merge(folder_ / "deep", folder_ / "delta.safetensors", folder_ / "no"); });
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  EXPECT_NE(error.message().find("4 layers, 3 of them kept, but this one has 6"), std::string::npos)
      << error.message();
}

TEST_F(MergeTest, FilesThatAreNoDeltaAreRefused) {
  tiny_.write_folder(folder_ / "base");
  const Error plain = error_of([&] { DeltaFile::open(folder_ / "base/model.safetensors"); });
  EXPECT_EQ(plain.kind(), ErrorKind::kInput);
  EXPECT_NE(plain.message().find("is no delta checkpoint"), std::string::npos);
  const auto with = [&](const char* layers, const char* kept) {
    SafetensorsWriter writer(folder_ / "d.safetensors", {},
                             {{"espalier_delta", "1"}, {"layers_before", layers}, {"kept", kept}});
    writer.finish();
    return error_of([&] { DeltaFile::open(folder_ / "d.safetensors"); }).message();
  };
  EXPECT_NE(with("x", "").find("layers_before is \"x\""), std::string::npos);
  EXPECT_NE(with("99999999999", "").find("layers_before"), std::string::npos);
  EXPECT_NE(with("4", "0-9").find("kept"), std::string::npos);
  EXPECT_NE(with("4", "3,1").find("kept"), std::string::npos);
}

TEST(RemapAdapter, RenumbersKeptLayersAndDropsOthers) {
  EXPECT_EQ(remapped_name("model.layers.7.mlp.up_proj", {0, 7, 9}), "model.layers.1.mlp.up_proj");
  EXPECT_EQ(remapped_name("model.layers.8.mlp.up_proj", {0, 7, 9}), std::nullopt);
  EXPECT_EQ(remapped_name("lm_head.weight", {0, 7, 9}), "lm_head.weight");
}

TEST(RemapAdapter, BrokenRecordsAreNamed) {
  const TemporaryFolder folder;
  EXPECT_FALSE(read_pruning_record(folder / "").has_value());
  for (const char* text : {"{}", "[]", "{\"layers_before\": 4, \"kept\": [2, 1]}",
                           "{\"layers_before\": 2, \"kept\": [0, 5]}"}) {
    write_file_atomically(folder / "espalier_pruning.json", text);
    EXPECT_THROW(read_pruning_record(folder / ""), Error) << text;
  }
}

}  // namespace
}  // namespace espalier
