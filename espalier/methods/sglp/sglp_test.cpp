// GradNorm against autograd on the whole batch and finite differences, combinations against trying
// them by hand, plans and refusals.
#include <cmath>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/eval/hidden_similarity.h"
#include "espalier/methods/sglp/importance.h"
#include "espalier/methods/sglp/prune.h"

#include "tests/support/random_images.h"
#include "tests/support/thrown_by.h"

namespace espalier::sglp {
namespace {

using testing_support::random_images;
using testing_support::thrown_by;
using Layers = std::vector<std::int64_t>;

/// Two blocks a stage; layers: stem, then heads 1, 3, 5 and the others 2, 4, 6.
const Cnn& net() {
  static const Cnn made = Cnn::make(cnn_config("resnet14", 10), 5);
  return made;
}

Segmentation cut(Layers starts) {
  Segmentation segmentation;
  segmentation.k = static_cast<std::int64_t>(starts.size());
  segmentation.starts = std::move(starts);
  return segmentation;
}

TEST(GradNorm, PartsOfABatchGiveTheGradientOfTheWholeBatch) {
  const ImageSample images = random_images(160, 10, 2, 80);  // 80 images go in two parts
  const std::vector<double> norms = layer_gradient_norms(net(), images, silent_reporter());
  Cnn copy = net().clone();
  for (const NamedTensor& parameter : copy.parameters()) parameter.tensor.requires_grad_(true);
  for (const std::int64_t layer : {0, 1, 4, 6}) {
    double expected = 0;
    for (std::int64_t batch = 0; batch < 2; ++batch) {
      const at::Tensor loss =
          at::cross_entropy_loss(copy.forward(images.images(copy, batch), NormMode::kRunning),
                                 images.targets(copy, batch));
      double squares = 0;
      for (const NamedTensor& parameter : copy.hidden_parameters(layer)) {
        const at::Tensor g =
            torch::autograd::grad({loss}, {parameter.tensor}, {}, /*retain_graph=*/true).front();
        squares += g.to(at::kDouble).square().sum().item<double>();
      }
      expected += std::sqrt(squares) / 2;
    }
    EXPECT_NEAR(norms[static_cast<std::size_t>(layer)] / expected, 1, 1e-4) << layer;
  }
  EXPECT_EQ(norms.size(), 7u);
  for (const NamedTensor& parameter : net().parameters())
    EXPECT_FALSE(parameter.tensor.requires_grad()) << "the caller's network is left alone";
}

TEST(GradNorm, NotFiniteNamesTheLayer) {
  Cnn broken = net().clone();
  for (const NamedTensor& parameter : broken.parameters())
    if (parameter.name == "linear.bias") parameter.tensor.fill_(INFINITY);
  const Error error = thrown_by(
      [&] { layer_gradient_norms(broken, random_images(16, 10, 1, 16), silent_reporter()); });
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  EXPECT_NE(error.message().find("that of layer 0 (conv1) is no finite number"), std::string::npos);
  EXPECT_FALSE(error.hint_text().empty());
}

TEST(Combinations, AreCounted) {
  EXPECT_EQ(combination_count(cut({0, 3, 11, 24, 26}), 28, {3, 4, 5, 2, 2}, {}), 1360);
  EXPECT_EQ(combination_count(cut({0, 3}), 7, {2, 2}, {0, 1, 3, 5}), 1 + 1);
  EXPECT_EQ(combination_count(cut({0}), 600, {300}, {}), std::numeric_limits<std::int64_t>::max());
}

TEST(Combinations, TheLargestNormOfEachSegmentStaysWhateverTheOrder) {
  const ImageSample images = random_images(32, 10, 1, 16);
  const CombinationOptions options{.batches = 2, .batch_size = 16, .seed = 9};
  const Segmentation one = cut({0});
  const CombinationChoice choice =
      best_combinations(net(), images, one, {5}, {0, 1, 3, 5}, options, silent_reporter());
  EXPECT_EQ(choice.networks, 3);
  // Each of the three alone, in another order: nothing is carried over from one to the next.
  double best = -1;
  Layers kept;
  for (const std::int64_t layer : {6, 2, 4}) {
    Layers all{0, 1, 3, 5, layer};
    std::sort(all.begin(), all.end());
    const CombinationChoice alone =
        best_combinations(net(), images, one, {5}, all, options, silent_reporter());
    EXPECT_EQ(alone.networks, 1);
    EXPECT_EQ(alone.kept, all);
    if (alone.norms[0] > best) best = alone.norms[0], kept = all;
  }
  EXPECT_EQ(choice.kept, kept);
  EXPECT_NEAR(choice.norms[0] / best, 1, 1e-6);
}

TEST(Combinations, TooManyAreRefusedWithTheirNumber) {
  CombinationOptions options;
  options.limit = 2;
  const Error error = thrown_by([&] {
    best_combinations(net(), random_images(16, 10, 1, 16), cut({0}), {5}, {0, 1, 3, 5}, options,
                      silent_reporter());
  });
  EXPECT_EQ(error.subject(), "--importance");
  EXPECT_EQ(error.message(), "combination would try 3 networks; 2 is the most");
}

TEST(Plan, SegmentsBiasedRatiosOfWholeFeatures) {
  const ImageSample images = random_images(40, 10, 2, 16);
  SglpOptions options;
  options.keep = 5;
  const SglpResult result = plan_pruning(net(), images, options, silent_reporter());
  const at::Tensor cka =
      hidden_similarity(net(), images, {FeatureForm::kFlattened, CkaEstimator::kBiased}, {},
                        silent_reporter())
          .cka_mean_of_ratios();
  EXPECT_TRUE(at::equal(result.cka, cka));
  const std::vector<double>& norms = result.plan.scores.at("gradnorm");
  EXPECT_EQ(result.plan.kept, plan_segments(cka, norms, 5, {}, {0, 1, 3, 5}).kept);
  EXPECT_EQ(result.plan.kept.size(), 5u);
  const Json details = parse_json(result.plan.details, "details");
  EXPECT_EQ(details["segments"]["starts"][0], 0);
  EXPECT_EQ(details["importance"], "layer");

  options.importance = Importance::kCombination;
  const SglpResult combined = plan_pruning(net(), images, options, silent_reporter());
  EXPECT_EQ(combined.plan.kept.size(), 5u);
  EXPECT_FALSE(combined.plan.scores.contains("gradnorm"));
}

TEST(Plan, BudgetsBelowWhatIsProtectedAreRefusedWithBothNumbers) {
  const ImageSample images = random_images(40, 10, 2, 16);
  SglpOptions options;
  options.keep = 3;
  EXPECT_EQ(thrown_by([&] { plan_pruning(net(), images, options, silent_reporter()); }).message(),
            "is 3, but 4 layers are protected: the stem and the heads of stages");
  options.keep = 5;
  options.rule.k_max = 1;
  options.rule.budgets = {4};
  EXPECT_EQ(thrown_by([&] { plan_pruning(net(), images, options, silent_reporter()); }).message(),
            "adds up to 4, but 5 layers are to stay");
  options.rule.k_max = 8;
  EXPECT_EQ(thrown_by([&] { plan_pruning(net(), images, options, silent_reporter()); }).message(),
            "at most 8 segments of 7 members were asked for; 1 to 7 are possible");
}

}  // namespace
}  // namespace espalier::sglp
