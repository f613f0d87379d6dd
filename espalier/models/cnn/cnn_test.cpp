// CIFAR and torchvision ResNets as a whole: published sizes, hand-checked forward, hidden features,
// statistics, files, dropping layers.
#include "espalier/models/cnn/cnn.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

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

TEST(CnnTest, ToSharesWhatFitsAndCloneNothing) {
  const Cnn net = Cnn::make(cnn_config("resnet8", 10), 3);
  const Cnn same = net.to(at::kCPU, at::kFloat),
            half = net.to(at::kCPU, at::kBFloat16, at::MemoryFormat::ChannelsLast),
            copy = net.clone();
  EXPECT_TRUE(same.parameters()[0].tensor.is_same(net.parameters()[0].tensor));
  EXPECT_EQ(half.parameters()[0].tensor.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(half.parameters()[0].tensor.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_EQ(half.parameters()[1].tensor.scalar_type(), at::kFloat) << "a norm's weight";
  copy.parameters()[0].tensor.zero_();
  EXPECT_NE(net.parameters()[0].tensor.abs().sum().item<float>(), 0);
  EXPECT_EQ(net.device(), at::Device(at::kCPU));
}

TEST(CnnTest, SeedAloneDecidesTheWeights) {
  for (const char* arch : {"resnet8", "resnet18", "vgg16_bn",
                           "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"}) {
    const auto a = Cnn::make(cnn_config(arch, 10), 3).parameters(),
               b = Cnn::make(cnn_config(arch, 10), 3).parameters(),
               c = Cnn::make(cnn_config(arch, 10), 4).parameters();
    for (std::size_t i = 0; i < a.size(); ++i)
      EXPECT_TRUE(a[i].tensor.equal(b[i].tensor)) << a[i].name;
    EXPECT_FALSE(a[0].tensor.equal(c[0].tensor)) << arch;
  }
  // Deviations of the references: sqrt(2 / fan) of 64 * 9 inputs or 512 * 9 outputs.
  const auto deviation = [](const Cnn& net, std::string_view name) {
    for (const NamedTensor& p : net.parameters())
      if (p.name == name) return p.tensor.std().item<double>();
    return 0.0;
  };
  EXPECT_NEAR(deviation(Cnn::make(cnn_config("resnet8", 10), 1), "layer3.0.conv2.weight"),
              std::sqrt(2.0 / 576), 1e-3);
  EXPECT_NEAR(deviation(Cnn::make(cnn_config("vgg16_bn", 10), 1), "features.40.weight"),
              std::sqrt(2.0 / 4608), 1e-3);
}

TEST(CnnTest, VggDropsOutInTrainingOnly) {
  const c10::NoGradGuard no_grad;
  Cnn net = Cnn::make(cnn_config("vgg16_bn", 10), 3);
  const at::Tensor x = images(2);
  const at::Tensor plain = net.clone().forward(x, NormMode::kBatch);
  const at::Tensor counter = at::zeros({}, at::kLong);
  net.set_dropout(std::make_shared<DropoutState>(DropoutState{1, counter, true}));
  const auto run = [&](NormMode mode) { return net.clone().forward(x, mode); };
  const at::Tensor first = run(NormMode::kBatch);
  EXPECT_FALSE(first.equal(plain));
  EXPECT_TRUE(first.equal(run(NormMode::kBatch))) << "one counter, one mask";
  counter.add_(1);
  EXPECT_FALSE(first.equal(run(NormMode::kBatch)));
  EXPECT_TRUE(run(NormMode::kRunning).equal(run(NormMode::kRunning)));
}

TEST(CnnTest, ImagesThatDoNotFitAreRefused) {
  const auto message = [](const std::string& arch, const at::Tensor& x) {
    try {
      Cnn::make(cnn_config(arch, 10), 1).forward(x, NormMode::kRunning);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      return error.message();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message("resnet8", images(1, 32, 1)),
            "has shape [1, 1, 32, 32], expected [-1, 3, -1, -1]");
  EXPECT_EQ(message("vgg16_bn", images(1, 28)),
            "have shape [1, 3, 28, 28], but a VGG needs at least 32 x 32 pixels");
  EXPECT_EQ(message("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", images(1, 30)),
            "have shape [1, 3, 30, 30], but a cell net needs a height and width divisible by 4");
  EXPECT_EQ(message("resnet8", images(1, 29)), "accepted") << "odd sizes are fine";
}

}  // namespace
}  // namespace espalier
