// Similarity of a CNN's layers against explicit features, and every refusal of images.
#include "espalier/eval/hidden_similarity.h"

#include <cmath>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"

#include "tests/support/random_images.h"
#include "tests/support/thrown_by.h"

namespace espalier {
namespace {

using testing_support::random_images;
using testing_support::thrown_by;

const Cnn& net() {
  static const Cnn made = Cnn::make(cnn_config("resnet8", 10), 5);
  return made;
}

at::Tensor explicit_cka(const ImageSample& images, FeatureForm form, CkaEstimator estimator) {
  HsicMatrix hsic(4, estimator);
  for (std::int64_t batch = 0; batch < images.batches; ++batch) {
    std::vector<at::Tensor> features;
    net().forward_hidden(images.images(net(), batch), NormMode::kRunning,
                         [&](std::int64_t, const at::Tensor& feature) {
                           features.push_back(form == FeatureForm::kPooled ? feature.mean({2, 3})
                                                                           : feature.flatten(1));
                         });
    hsic.add_batch(features);
  }
  return hsic.cka();
}

TEST(HiddenSimilarity, EqualsExplicitFeatures) {
  const ImageSample images = random_images(20, 5, 2, 8);
  for (const FeatureForm form : {FeatureForm::kPooled, FeatureForm::kFlattened}) {
    for (const CkaEstimator estimator : {CkaEstimator::kUnbiased, CkaEstimator::kBiased}) {
      std::vector<at::Tensor> batches;
      const HsicMatrix found = hidden_similarity(
          net(), images, {form, estimator, 100},
          [&](const at::Tensor& cka) { batches.push_back(cka); }, silent_reporter());
      EXPECT_EQ(found.batches(), 2);
      ASSERT_EQ(batches.size(), 2u);
      EXPECT_TRUE(at::allclose(found.cka(), explicit_cka(images, form, estimator), 1e-9, 1e-9));
      EXPECT_TRUE(at::allclose((batches[0] + batches[1]) / 2, found.cka_mean_of_ratios(), 1e-12));
      EXPECT_TRUE(found.degenerate_layers().empty());
    }
  }
}

TEST(HiddenSimilarity, ChannelsLastGivesTheSame) {
  const ImageSample images = random_images(8, 5, 1, 8);
  const Cnn other = net().to(at::kCPU, at::kFloat, at::MemoryFormat::ChannelsLast);
  const HiddenSimilarityOptions options{FeatureForm::kFlattened, CkaEstimator::kUnbiased};
  const auto cka = [&](const Cnn& cnn) {
    return hidden_similarity(cnn, images, options, {}, silent_reporter()).cka();
  };
  EXPECT_TRUE(at::allclose(cka(net()), cka(other), 1e-4, 1e-5));
}

TEST(ImageSample, AreNormalisedByTheConfig) {
  ImageSample images = random_images(8, 5, 2, 4);
  const at::Tensor x = images.images(net(), 1);
  EXPECT_EQ(x.sizes(), (at::IntArrayRef{4, 3, 16, 16}));
  const double pixel = images.pixels[5][2][3][4].item<double>();
  EXPECT_NEAR(x[1][2][3][4].item<double>(),
              (pixel / 255 - net().config().mean[2]) / net().config().std[2], 1e-5);
  EXPECT_EQ(images.targets(net(), 1)[0].item<std::int64_t>(), 4);
}

TEST(ImageSample, WhatDoesNotFitIsRefused) {
  check_image_sample(net(), random_images(20, 5, 2, 10));
  const Error many = thrown_by([] { check_image_sample(net(), random_images(20, 5, 3, 8)); });
  EXPECT_EQ(many.kind(), ErrorKind::kUsage);
  EXPECT_EQ(many.message(), "3 batches of 8 are 24 images, but there are 20");
  EXPECT_EQ(many.hint_text(), "--batches 2 --batch-size 8");
  const Error classes = thrown_by([] { check_image_sample(net(), random_images(20, 11, 2, 8)); });
  EXPECT_EQ(classes.message(), "11 classes, but the net has 10 outputs");
  const Error single = thrown_by([] { check_image_sample(net(), random_images(20, 1, 2, 8)); });
  EXPECT_EQ(single.message(), "are all of a single class: nothing can be told apart");
  ImageSample grey = random_images(20, 5, 2, 8);
  grey.pixels = grey.pixels.narrow(1, 0, 1);
  EXPECT_EQ(thrown_by([&] { check_image_sample(net(), grey); }).message(),
            "1 channels, but the net takes 3");
  const Error few = thrown_by(
      [] { hidden_similarity(net(), random_images(6, 2, 2, 3), {}, {}, silent_reporter()); });
  EXPECT_NE(few.message().find("3 samples, but the unbiased estimator of CKA needs at least 4"),
            std::string::npos);
}

TEST(HiddenSimilarity, ConstantFeaturesAreDegenerateAndCountZero) {
  Cnn dead = net().clone();
  for (const NamedTensor& parameter : dead.parameters())
    if (parameter.name == "conv1.weight") parameter.tensor.zero_();
  const HsicMatrix found =
      hidden_similarity(dead, random_images(8, 5, 1, 8), {}, {}, silent_reporter());
  EXPECT_EQ(found.degenerate_layers().size(), 4u) << "what follows a dead stem is constant too";
  EXPECT_EQ(msrs(found.cka()).value, 0);
}

}  // namespace
}  // namespace espalier
