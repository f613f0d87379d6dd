// Which hidden layers may go, in what words the others are refused, and stage heads that do go.
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/models/cnn/cnn.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

using Stages = std::vector<std::vector<std::int64_t>>;

struct Warnings : Reporter {
  std::vector<std::string> told;
  void log(LogLevel, std::string_view message) override { told.emplace_back(message); }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    return silent_reporter().phase(name, total, unit);
  }
};

Error refusal(const Cnn& net, const std::vector<std::int64_t>& kept, bool allow = false) {
  try {
    net.with_layers(kept, {.allow_stage_head_drop = allow}, silent_reporter());
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "was accepted";
  return Error(ErrorKind::kInternal, "", "");
}

at::Tensor images() {
  return at::randn({2, 3, 32, 32}, make_generator(2, "images", 0, 0, at::kCPU));
}

TEST(WithLayersTest, PublishedSelectionHasItsSize) {
  // RedTest's ResNet-56 on CIFAR-10: {0,1,2,4,6,7}, {0}, {0,4,5,6,7,8}
  const Cnn net = Cnn::make(cnn_config("resnet56", 10), 1);
  const std::vector<std::int64_t> kept{0, 1, 2, 3, 5, 7, 8, 10, 19, 23, 24, 25, 26, 27};
  const Cnn left = net.with_layers(kept, {}, silent_reporter());
  EXPECT_EQ(left.config().stages, (Stages{{0, 1, 2, 4, 6, 7}, {0}, {0, 4, 5, 6, 7, 8}}));
  EXPECT_EQ(left.parameter_count(), 468'570);
  // Cut again: indices are those of the net at hand, what is recorded those of the whole net.
  const Cnn again = left.with_layers({0, 1, 4, 7, 8, 10}, {}, silent_reporter());
  EXPECT_EQ(again.config().stages, (Stages{{0, 4}, {0}, {0, 5}}));
}

TEST(WithLayersTest, WeightsAreShared) {
  Cnn net = Cnn::make(cnn_config("resnet14", 10), 1);
  Cnn left = net.with_layers({0, 1, 3, 4, 5}, {}, silent_reporter());
  const auto mine = left.hidden_parameters(2), theirs = net.hidden_parameters(3);
  ASSERT_EQ(mine.size(), theirs.size());
  for (std::size_t i = 0; i < mine.size(); ++i)
    EXPECT_TRUE(mine[i].tensor.is_same(theirs[i].tensor)) << mine[i].name;
  EXPECT_EQ(left.hidden_parameters(2).front().name, "layer2.0.conv1.weight");
}

TEST(WithLayersTest, RefusalsNameStageAndFix) {
  const Cnn net = Cnn::make(cnn_config("resnet20", 10), 1);
  const Error stem = refusal(net, {1, 4, 7});
  EXPECT_EQ(stem.kind(), ErrorKind::kUsage);
  EXPECT_EQ(stem.message(), "the stem conv1 (layer 0) cannot go");
  const Error head = refusal(net, {0, 1, 5, 7});
  EXPECT_EQ(head.message(),
            "stage 2 would lose its first layer layer2.0 (layer 4), which owns its change of "
            "channels and size");
  EXPECT_NE(head.hint_text().find("--allow-stage-head-drop"), std::string::npos);
  EXPECT_EQ(refusal(net, {0, 1, 7}).message(), "stage 2 would lose all of its 3 layers");
  EXPECT_EQ(refusal(net, {0, 1, 7}, true).message(),
            "stage 2 would lose all of its 3 layers, but it changes the number of channels");
  EXPECT_NE(refusal(net, {0, 5, 8}).message().find("3 problems"), std::string::npos);
  EXPECT_EQ(refusal(net, {}).message(), "the list is empty; the net has layers 0-9");
  EXPECT_EQ(refusal(net, {0, 1, 4, 7, 10}).message(), "10 is out of range; the net has layers 0-9");
  EXPECT_EQ(refusal(net, {0, 1, 7, 4}).message(),
            "4 stands after 7; the list must ascend without repeats");

  const Error vgg = refusal(Cnn::make(cnn_config("vgg19_bn", 10), 1), {0, 2, 3, 4, 7, 8, 9, 11});
  EXPECT_EQ(vgg.message(), "stage 5 would lose all of its 4 layers");
  const Error cell = refusal(
      Cnn::make(cnn_config("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", 10), 1), {0});
  EXPECT_EQ(cell.kind(), ErrorKind::kUnsupported);
  EXPECT_EQ(cell.message(), "layers of a cell net cannot be dropped");
}

TEST(WithLayersTest, DroppedStageHeadStartsAnew) {
  const Cnn net = Cnn::make(cnn_config("resnet20", 10), 1);
  Warnings warnings;
  const LayerDropOptions options{.allow_stage_head_drop = true, .seed = 5};
  const Cnn left = net.with_layers({0, 2, 6, 7}, options, warnings);
  EXPECT_EQ(left.config().stages, (Stages{{1}, {2}, {0}}));
  // Stage 1 keeps its 16 channels, so its second block fits as it is; stage 2's third does not.
  EXPECT_EQ(warnings.told, (std::vector<std::string>{
                               "layer2.2 takes the place of a dropped stage head and starts from "
                               "random weights"}));
  EXPECT_TRUE(left.hidden_parameters(1)[0].tensor.is_same(net.hidden_parameters(2)[0].tensor));
  EXPECT_EQ(left.hidden_parameters(2)[0].tensor.sizes(), (at::IntArrayRef{32, 16, 3, 3}));
  EXPECT_TRUE(left.forward(images(), NormMode::kRunning).isfinite().all().item<bool>());
  const Cnn same = net.with_layers({0, 2, 6, 7}, options, warnings);
  EXPECT_TRUE(
      same.forward(images(), NormMode::kRunning).equal(left.forward(images(), NormMode::kRunning)));
}

TEST(WithLayersTest, PublishedVggSelectionEmptiesTheLastStage) {
  const Cnn net = Cnn::make(cnn_config("vgg19_bn", 10), 1);
  Warnings warnings;
  const Cnn left =
      net.with_layers({0, 2, 3, 4, 7, 8, 9, 11}, {.allow_stage_head_drop = true}, warnings);
  EXPECT_EQ(left.config().stages, (Stages{{0}, {0, 1}, {0, 3}, {0, 1, 3}, {}}));
  EXPECT_TRUE(warnings.told.empty());
  EXPECT_EQ(left.forward(images(), NormMode::kRunning).sizes(), (at::IntArrayRef{2, 10}));
  EXPECT_EQ(parse_cnn_config(cnn_config_json(left.config()), "config.json"), left.config());
}

}  // namespace
}  // namespace espalier
