// Pruned CNN folders: what is kept computes the same, records, baselines, refusals.
#include "espalier/surgery/cnn_plan.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/temp_folder_internal.h"

#include "tests/support/thrown_by.h"

namespace espalier {
namespace {

using testing_support::thrown_by;

using Layers = std::vector<std::int64_t>;

const Cnn& net() {
  static const Cnn made = Cnn::make(cnn_config("resnet20", 10), 5);
  return made;
}

TEST(CnnPruning, StemAndHeadsArePartOfEveryPlan) {
  EXPECT_EQ(layers_always_kept(net(), false), (Layers{0, 1, 4, 7}));
  EXPECT_EQ(layers_always_kept(net(), true), (Layers{0}));
  const Error few = thrown_by([] { check_cnn_pruning(net(), 3, false); });
  EXPECT_EQ(few.message(), "is 3, but 4 layers are protected: the stem and the heads of stages");
  EXPECT_EQ(few.hint_text(),
            "--keep-layers 4 is the least; --allow-stage-head-drop protects the stem alone");
  check_cnn_pruning(net(), 4, false);
  check_cnn_pruning(net(), 1, true);
  EXPECT_EQ(thrown_by([] { check_cnn_pruning(net(), 11, false); }).message(),
            "is 11, but resnet20 has 10 layers, the stem included");
}

TEST(CnnPruning, MagnitudeSumsWeightsAndNormsWithoutBiases) {
  Cnn other = net().clone();
  for (const NamedTensor& parameter : other.parameters()) {
    if (parameter.name.starts_with("layer2.1.")) parameter.tensor.fill_(-0.5);
  }
  // Two convolutions 32 x 32 x 3 x 3 and two norms of 32 channels.
  EXPECT_NEAR(layer_magnitudes(other)[5], 0.5 * (2 * 9216 + 2 * 32), 1e-6);
  const CnnPrunePlan plan = plan_by_magnitude(other, 5, false);
  EXPECT_EQ(plan.kept.size(), 5u);
  const std::vector<double>& scores = plan.scores.at("magnitude");
  for (const std::int64_t dropped : dropped_layers(other, plan.kept)) {
    EXPECT_LE(scores[static_cast<std::size_t>(dropped)],
              *std::max_element(scores.begin(), scores.end()));
  }
}

TEST(CnnPruning, RandomDependsOnTheSeedAlone) {
  EXPECT_EQ(plan_at_random(net(), 6, false, 3).kept, plan_at_random(net(), 6, false, 3).kept);
  std::set<Layers> choices;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const Layers kept = plan_at_random(net(), 6, false, seed).kept;
    const Layers fixed{0, 1, 4, 7};
    EXPECT_TRUE(std::includes(kept.begin(), kept.end(), fixed.begin(), fixed.end()));
    choices.insert(kept);
  }
  EXPECT_GT(choices.size(), 3u);
}

TEST(CnnPruning, TheFolderComputesWhatTheKeptLayersCompute) {
  const TempFolder folder;
  CnnPrunePlan plan = plan_at_random(net(), 6, false, 3);
  plan.details = R"({"importance": "none"})";
  RunFolder run = RunFolder::create(folder / "out", OutputPolicy::kFresh, {});
  const PrunedCnn pruned =
      write_planned_cnn(net(), plan, "a/b/net.pth", "espalier prune", run, silent_reporter());
  run.publish();
  const Cnn loaded = Cnn::load(folder / "out");
  const at::Tensor images = at::ones({2, 3, 32, 32});
  const Cnn expected = net().with_layers(plan.kept, {}, silent_reporter());
  EXPECT_TRUE(at::equal(loaded.forward(images, NormMode::kRunning),
                        expected.forward(images, NormMode::kRunning)));
  EXPECT_EQ(loaded.hidden_layers().size(), 6u);
  EXPECT_EQ(pruned.parameters_before, 269'722);
  EXPECT_EQ(pruned.parameters_after, loaded.parameter_count());
  const Json record = read_json_file(folder / "out/espalier_pruning.json");
  EXPECT_EQ(record["source"], "net.pth");
  EXPECT_EQ(record["layers_before"], 10);
  EXPECT_EQ(record["kept"], Json(plan.kept));
  EXPECT_EQ(record["kept_names"][0], "conv1");
  EXPECT_EQ(record["importance"], "none");
  EXPECT_TRUE(std::filesystem::is_regular_file(folder / "out/README.md"));
}

TEST(CnnPruning, CellNetsAreRefused) {
  const Cnn cells = Cnn::make(
      cnn_config("|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|", 10), 1);
  EXPECT_EQ(thrown_by([&] { check_cnn_pruning(cells, 5, false); }).kind(), ErrorKind::kUnsupported);
}

}  // namespace
}  // namespace espalier
