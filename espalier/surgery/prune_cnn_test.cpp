// Pruned CNN folders: equal to skipping in memory, whatever the family; names, indices, refusals.
#include "espalier/surgery/prune_cnn.h"

#include <map>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

at::Tensor noise(std::int64_t count, std::int64_t size) {
  return at::randn({count, 3, size, size}, make_generator(9, "images", 0, 0, at::kCPU));
}

/// A net whose norms have statistics of their own.
Cnn trained(const std::string& arch) {
  const c10::NoGradGuard no_grad;
  CnnConfig config = cnn_config(arch, 10);
  config.image_size = 32;
  const Cnn net = Cnn::make(config, 4);
  net.forward(noise(4, 32), NormMode::kBatch);
  return net;
}

/// The whole net in which the blocks `skipped` add nothing: relu(x + 0) is x behind a ReLU.
Cnn silenced(const Cnn& net, const std::vector<std::string>& skipped,
             const std::string& last_norm) {
  Cnn copy = net.clone();
  for_each_tensor(copy, "", [&](const std::string& name, at::Tensor& tensor) {
    for (const std::string& block : skipped) {
      const std::string norm = block + "." + last_norm;
      if (name == norm + ".weight" || name == norm + ".bias") tensor.zero_();
    }
  });
  return copy;
}

void expect_skipped(const std::string& arch, const std::vector<std::int64_t>& removed,
                    const std::string& last_norm) {
  SCOPED_TRACE(arch);
  const c10::NoGradGuard no_grad;
  const TempFolder folder;
  const Cnn net = trained(arch);
  std::vector<std::int64_t> kept;
  const auto layers = static_cast<std::int64_t>(net.hidden_layers().size());
  for (std::int64_t i = 0; i < layers; ++i)
    if (std::find(removed.begin(), removed.end(), i) == removed.end()) kept.push_back(i);
  const PrunedCnn pruned = write_pruned_cnn(net, kept, {}, folder / "out", silent_reporter());
  EXPECT_EQ(pruned.removed, removed);
  const at::Tensor x = noise(3, 32);
  const at::Tensor expected =
      silenced(net, pruned.removed_names, last_norm).forward(x, NormMode::kRunning);
  EXPECT_TRUE(Cnn::load(folder / "out").forward(x, NormMode::kRunning).equal(expected));
  EXPECT_FALSE(net.forward(x, NormMode::kRunning).equal(expected)) << "nothing was skipped";
}

TEST(PruneCnnTest, ResnetsEqualSkippingInMemory) {
  expect_skipped("resnet20", {2, 3, 6, 8}, "bn2");
  expect_skipped("resnet18", {2, 4, 8}, "bn2");
  expect_skipped("resnet50", {2, 5, 10, 16}, "bn3");
}

TEST(PruneCnnTest, VggEqualsSkippingInMemory) {
  const c10::NoGradGuard no_grad;
  const TempFolder folder;
  Cnn net = trained("vgg16_bn");
  // Stages 0-1, 2-3, 4-6, 7-9, 10-12.
  const std::vector<std::int64_t> kept{0, 2, 3, 4, 6, 7, 10, 11};
  write_pruned_cnn(net, kept, {}, folder / "out", silent_reporter());

  std::map<std::string, at::Tensor> t;
  for_each_tensor(net, "", [&](const std::string& name, at::Tensor& tensor) { t[name] = tensor; });
  const std::vector<std::int64_t> places{0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40};
  const std::vector<std::int64_t> last_kept{0, 3, 6, 7, 11};  // a pool behind each
  at::Tensor x = noise(3, 32);
  for (const std::int64_t layer : kept) {
    const std::string conv =
        "features." + std::to_string(places[static_cast<std::size_t>(layer)]) + ".";
    const std::string norm =
        "features." + std::to_string(places[static_cast<std::size_t>(layer)] + 1) + ".";
    x = at::conv2d(x, t[conv + "weight"], t[conv + "bias"], 1, 1);
    x = at::batch_norm(x, t[norm + "weight"], t[norm + "bias"], t[norm + "running_mean"],
                       t[norm + "running_var"], false, 0.1, 1e-5, false)
            .relu();
    if (std::find(last_kept.begin(), last_kept.end(), layer) != last_kept.end())
      x = at::max_pool2d(x, 2, 2);
  }
  x = x.mean(at::IntArrayRef{2, 3});
  for (const char* name : {"classifier.1.", "classifier.4.", "classifier.6."}) {
    x = at::linear(x, t[name + std::string("weight")], t[name + std::string("bias")]);
    if (name != std::string("classifier.6.")) x = x.relu();
  }
  const Cnn loaded = Cnn::load(folder / "out");
  EXPECT_TRUE(loaded.forward(noise(3, 32), NormMode::kRunning).equal(x));
  EXPECT_EQ(loaded.config().stages,
            (std::vector<std::vector<std::int64_t>>{{0}, {0, 1}, {0, 2}, {0}, {0, 1}}));
}

TEST(PruneCnnTest, WhatIsWrittenAndTold) {
  const TempFolder folder;
  const Cnn net = trained("resnet20");
  const PrunedCnn pruned =
      write_pruned_cnn(net, {0, 1, 3, 4, 7, 9}, {}, folder / "out", silent_reporter());
  EXPECT_EQ(pruned.removed, (std::vector<std::int64_t>{2, 5, 6, 8}));
  EXPECT_EQ(pruned.removed_names,
            (std::vector<std::string>{"layer1.1", "layer2.1", "layer2.2", "layer3.1"}));
  EXPECT_EQ(pruned.kept_names, (std::vector<std::string>{"conv1", "layer1.0", "layer1.2",
                                                         "layer2.0", "layer3.0", "layer3.2"}));
  EXPECT_EQ(pruned.parameters_before, 269'722);
  // A block of 16 channels has 2 * 16 * 16 * 9 + 4 * 16; of 32 and 64 alike.
  EXPECT_EQ(pruned.parameters_after, 269'722 - 4'672 - 2 * 18'560 - 73'984);
  const Cnn loaded = Cnn::load(folder / "out");
  EXPECT_EQ(loaded.config().stages, (std::vector<std::vector<std::int64_t>>{{0, 2}, {0}, {0, 2}}));
  EXPECT_EQ(loaded.hidden_layers()[2].name, "layer1.1");
  EXPECT_EQ(loaded.hidden_layers()[2].original, 2);
  EXPECT_THROW(write_pruned_cnn(net, {0, 1}, {}, folder / "none", silent_reporter()), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "none"));
}

}  // namespace
}  // namespace espalier
