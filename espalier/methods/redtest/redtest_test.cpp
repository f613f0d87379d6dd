// MSRS of a CNN against explicit features, both averages, the published choice, the documents.
#include <cmath>
#include <sstream>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/methods/redtest/prune.h"
#include "espalier/methods/redtest/redundancy_report.h"
#include "espalier/similarity/layer_choice.h"

#include "tests/support/random_images.h"
#include "tests/support/thrown_by.h"

namespace espalier::redtest {
namespace {

using testing_support::random_images;
using testing_support::thrown_by;

const Cnn& net() {
  static const Cnn made = Cnn::make(cnn_config("resnet20", 10), 5);
  return made;
}

/// CKA matrices of each batch over pooled features.
std::vector<at::Tensor> batch_matrices(const ImageSample& images) {
  std::vector<at::Tensor> matrices;
  for (std::int64_t batch = 0; batch < images.batches; ++batch) {
    std::vector<at::Tensor> features;
    net().forward_hidden(images.images(net(), batch), NormMode::kRunning,
                         [&](std::int64_t, const at::Tensor& x) {
                           features.push_back(x.mean({2, 3}));
                         });
    HsicMatrix hsic(static_cast<std::int64_t>(features.size()), CkaEstimator::kUnbiased);
    hsic.add_batch(features);
    matrices.push_back(hsic.cka());
  }
  return matrices;
}

TEST(Redundancy, RatioAveragesTheScoresOfBatches) {
  const ImageSample images = random_images(40, 5, 2, 16);
  const std::vector<at::Tensor> each = batch_matrices(images);
  RedundancyOptions options;
  options.average = CkaAverage::kRatio;
  options.tau = 0.5;
  options.beta = 5;
  const Redundancy found = measure_redundancy(net(), images, options, silent_reporter());
  EXPECT_TRUE(at::allclose(found.cka, (each[0] + each[1]) / 2, 1e-6, 1e-9));
  const Msrs a = msrs(each[0], 5, 0.5), b = msrs(each[1], 5, 0.5);
  EXPECT_NEAR(found.msrs.value, (a.value + b.value) / 2, 1e-6);
  EXPECT_NEAR(found.msrs.normalised, found.msrs.value / 45, 1e-9);
  EXPECT_NEAR(found.msrs.share[3], (a.share[3] + b.share[3]) / 2, 1e-6);
  EXPECT_GT(std::abs(found.msrs.value - msrs(found.cka, 5, 0.5).value), 1e-9)
      << "not the score of the mean matrix";
}

TEST(Redundancy, HsicScoresTheAveragedMatrix) {
  const ImageSample images = random_images(40, 5, 2, 16);
  const Redundancy found = measure_redundancy(net(), images, {}, silent_reporter());
  EXPECT_EQ(found.msrs.value, msrs(found.cka, 100, 0.8).value);
  const std::vector<at::Tensor> each = batch_matrices(images);
  const std::vector<double> mean = adjacent_similarity((each[0] + each[1]) / 2);
  ASSERT_EQ(found.adjacent.size(), 9u);
  for (std::size_t i = 0; i < mean.size(); ++i) EXPECT_NEAR(found.adjacent[i], mean[i], 1e-6);
}

TEST(Redundancy, TheSameImagesGiveTheSameBits) {
  const ImageSample images = random_images(40, 5, 2, 16);
  const Redundancy a = measure_redundancy(net(), images, {}, silent_reporter());
  const Redundancy b = measure_redundancy(net(), images, {}, silent_reporter());
  EXPECT_TRUE(at::equal(a.cka, b.cka));
}

TEST(Prune, KeepsStemHeadsAndTheLeastSimilar) {
  const ImageSample images = random_images(40, 5, 2, 16);
  const PruneResult result =
      plan_pruning(net(), images, {.keep = 6, .redundancy = {}}, silent_reporter());
  EXPECT_EQ(result.plan.kept, keep_least_similar(result.before.adjacent, 6, {0, 1, 4, 7}));
  EXPECT_TRUE(std::isnan(result.plan.scores.at("redtest")[0]));
  EXPECT_EQ(result.plan.scores.at("redtest")[1], result.before.adjacent[0]);
  const PruneResult free =
      plan_pruning(net(), images, {.keep = 3, .allow_stage_head_drop = true, .redundancy = {}},
                   silent_reporter());
  EXPECT_EQ(free.plan.kept, keep_least_similar(free.before.adjacent, 3));
  const Error few = thrown_by(
      [&] { plan_pruning(net(), images, {.keep = 3, .redundancy = {}}, silent_reporter()); });
  EXPECT_EQ(few.subject(), "--keep-layers");
  EXPECT_EQ(few.message(), "is 3, but 4 layers are protected: the stem and the heads of stages");
  const Error many = thrown_by(
      [&] { plan_pruning(net(), images, {.keep = 11, .redundancy = {}}, silent_reporter()); });
  EXPECT_EQ(many.message(), "is 11, but resnet20 has 10 layers, the stem included");
}

TEST(Report, JsonHasNoNanAndFilesAreWritten) {
  Cnn dead = net().clone();
  for (const NamedTensor& parameter : dead.parameters())
    if (parameter.name == "conv1.weight") parameter.tensor.zero_();
  RedundancyDocument document;
  document.model = "model<1>";
  document.arch = "resnet20";
  for (const HiddenLayer& layer : dead.hidden_layers()) document.names.push_back(layer.name);
  document.redundancy = measure_redundancy(dead, random_images(20, 5, 2, 8), {}, silent_reporter());
  document.segments = segment_layers(document.redundancy.cka, {});
  document.batches = 2;
  document.batch_size = 8;
  EXPECT_EQ(document.redundancy.degenerate.size(), 10u);
  const Json json = parse_json(redundancy_json(document), "document");
  EXPECT_EQ(json["schema"], "espalier.redundancy/1");
  EXPECT_TRUE(json["cka"][0][0].is_null());
  EXPECT_EQ(json["msrs"], 0.0);
  EXPECT_EQ(json["share"].size(), 10u);
  EXPECT_EQ(json["degenerate"].size(), 10u);
  EXPECT_TRUE(json["metrics"]["adjacent_cka"][0].is_null());
  EXPECT_EQ(json["calibration"]["samples"], 16);
  const std::string table = redundancy_table(document);
  EXPECT_NE(table.find("layer3.2"), std::string::npos);
  EXPECT_NE(table.find("MSRS 0.0000 of 45 pairs, 0.0000 of all"), std::string::npos);
  const TempFolder folder;
  write_redundancy(document, folder.path());
  for (const char* name : {"redundancy.json", "cka.csv", "run/report.html"})
    EXPECT_TRUE(std::filesystem::is_regular_file(folder.path() / name)) << name;
}

}  // namespace
}  // namespace espalier::redtest
