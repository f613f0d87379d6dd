// CIFAR and torchvision ResNets as a whole: published sizes, hand-checked forward, hidden features,
// statistics, files, dropping layers.
#include "espalier/models/cnn/cnn.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

at::Tensor images(std::int64_t count, std::int64_t size = 32, std::int64_t channels = 3) {
  return at::randn({count, channels, size, size}, make_generator(5, "images", 0, 0, at::kCPU));
}

CnnConfig blocks(const std::string& arch, const std::vector<std::int64_t>& counts) {
  CnnConfig config = cnn_config(arch, 10);
  for (std::size_t s = 0; s < counts.size(); ++s)
    config.stages[s].resize(static_cast<std::size_t>(counts[s]));
  return config;
}

TEST(CnnTest, ParameterCountsArePublished) {
  const auto count = Cnn::count_parameters;
  EXPECT_EQ(count(cnn_config("resnet20", 10)), 269'722);
  EXPECT_EQ(count(cnn_config("resnet56", 10)), 853'018);
  EXPECT_EQ(count(cnn_config("resnet110", 10)), 1'727'962);
  EXPECT_EQ(count(cnn_config("resnet1202", 10)), 19'421'274);
  EXPECT_EQ(count(blocks("resnet56", {5, 4, 4})), 371'610);
  EXPECT_EQ(count(blocks("resnet56", {4, 3, 4})), 348'378);
  EXPECT_EQ(count(blocks("resnet56", {6, 1, 6})), 468'570);
  // docs.pytorch.org/vision, num_params of each weights class
  EXPECT_EQ(count(cnn_config("resnet18", 1000)), 11'689'512);
  EXPECT_EQ(count(cnn_config("resnet34", 1000)), 21'797'672);
  EXPECT_EQ(count(cnn_config("resnet50", 1000)), 25'557'032);
  EXPECT_EQ(count(cnn_config("resnet101", 1000)), 44'549'160);
  EXPECT_EQ(count(cnn_config("resnet152", 1000)), 60'192'808);
  EXPECT_EQ(count(cnn_config("vgg16_bn_4096", 1000)), 138'365'992);
  EXPECT_EQ(count(cnn_config("vgg19_bn_4096", 1000)), 143'678'248);
  // 13 (16) convolutions with bias and norm, then 512 x 512, 512 x 512, 512 x 10 with biases
  EXPECT_EQ(count(cnn_config("vgg16_bn", 10)), 14'723'136 + 2 * 262'656 + 5'130);
  EXPECT_EQ(count(cnn_config("vgg19_bn", 10)), 20'035'392 + 2 * 262'656 + 5'130);
  // NATS-Bench lists 1.531546 and 1.073466 million for these
  EXPECT_EQ(count(cnn_config("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|"
                             "nor_conv_3x3~1|nor_conv_3x3~2|",
                             10)),
            1'531'546);
  EXPECT_EQ(count(cnn_config("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|"
                             "nor_conv_1x1~1|nor_conv_3x3~2|",
                             10)),
            1'073'466);
}

TEST(CnnTest, HiddenFeaturesInOrder) {
  const Cnn net = Cnn::make(cnn_config("resnet8", 10), 1);
  std::vector<std::vector<std::int64_t>> shapes;
  const at::Tensor x = images(2);
  const at::Tensor logits =
      net.forward_hidden(x, NormMode::kRunning, [&](auto index, const auto& f) {
        EXPECT_EQ(index, static_cast<std::int64_t>(shapes.size()));
        shapes.push_back(f.sizes().vec());
      });
  EXPECT_EQ(shapes, (std::vector<std::vector<std::int64_t>>{
                        {2, 16, 32, 32}, {2, 16, 32, 32}, {2, 32, 16, 16}, {2, 64, 8, 8}}));
  EXPECT_TRUE(logits.equal(net.forward(x, NormMode::kRunning)));
  const auto layers = net.hidden_layers();
  ASSERT_EQ(layers.size(), 4u);
  EXPECT_EQ(layers[0].name, "conv1");
  EXPECT_EQ(layers[2].name, "layer2.0");
  EXPECT_EQ(layers[0].parameters, 3 * 16 * 9 + 32);
}

TEST(CnnTest, SavedFolderGivesTheSameBits) {
  const TempFolder folder;
  Cnn net = Cnn::make(cnn_config("resnet14", 7), 3);
  net.forward(images(8), NormMode::kBatch);  // statistics that are not 0 and 1
  net.save(folder / "net");
  EXPECT_TRUE(is_cnn_folder(folder / "net"));
  const Cnn back = Cnn::load(folder / "net");
  EXPECT_EQ(back.config(), net.config());
  EXPECT_TRUE(back.forward(images(2), NormMode::kRunning)
                  .equal(net.forward(images(2), NormMode::kRunning)));
}

TEST(CnnTest, MixedPrecisionTrainsFloatMasters) {
  Cnn net = Cnn::make(cnn_config("resnet8", 10), 3);
  for (NamedTensor& p : net.parameters()) p.tensor.set_requires_grad(true);
  const at::Tensor x = images(4).to(at::kBFloat16).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor logits = net.forward(x, NormMode::kBatch);
  EXPECT_EQ(logits.scalar_type(), at::kBFloat16);
  logits.to(at::kFloat).square().sum().backward();
  for (NamedTensor& p : net.parameters()) {
    ASSERT_TRUE(p.tensor.grad().defined()) << p.name;
    EXPECT_EQ(p.tensor.grad().scalar_type(), at::kFloat) << p.name;
  }
}

}  // namespace
}  // namespace espalier
