// How requests become plans: sizes, methods, scores from files, perplexities; and the files of a
// pruned folder.
#include "espalier/methods/layer_pruning/prune_plan.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/methods/layer_pruning/model_card.h"
#include "espalier/methods/layer_pruning/prune_job.h"
#include "espalier/methods/layer_pruning/redundancy_report.h"
#include "espalier/surgery/layer_plan.h"

#include "tests/support/tiny_model.h"

namespace espalier::layer_pruning {
namespace {

using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;
using Layers = std::vector<std::int64_t>;

PruneRequest by_count(std::int64_t count, const std::string& method = "reverse") {
  PruneRequest request;
  request.count = count;
  request.method = method;
  return request;
}

Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorKind::kInternal, "", "");
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(RemovalSize, RatioIsRoundedDownAndListsAreRead) {
  PruneRequest request;
  request.ratio = 0.25;
  EXPECT_EQ(removal_size(request, 30).count, 7);
  EXPECT_EQ(removal_size(request, 26).count, 6);
  EXPECT_EQ(removal_size(request, 32).count, 8);
  request.ratio = 0.7;
  EXPECT_EQ(removal_size(request, 10).count, 7);
  request = {};
  request.remove = "2-3";
  EXPECT_EQ(removal_size(request, 5).removed, (Layers{2, 3}));
  request = {};
  request.keep = "0-1,4";
  EXPECT_EQ(removal_size(request, 5).removed, (Layers{2, 3}));
}

TEST(RemovalSize, Refusals) {
  const auto message = [](PruneRequest request) {
    return error_of([&] { removal_size(request, 8); });
  };
  PruneRequest none;
  EXPECT_TRUE(has(message(none).hint_text(), "--ratio 0.25"));
  PruneRequest two = by_count(2);
  two.ratio = 0.5;
  EXPECT_TRUE(has(message(two).message(), "2 of --remove"));
  EXPECT_TRUE(has(message(by_count(8)).message(),
                  "8 of the model's 8 layers would go; between 1 and 7 can"));
  PruneRequest small;
  small.ratio = 0.1;
  EXPECT_EQ(message(small).subject(), "--ratio");
  EXPECT_TRUE(has(message(small).message(), "0 of the model's 8"));
  PruneRequest keep;
  keep.keep = "3,1";
  EXPECT_TRUE(has(message(keep).message(), "layer 1 comes after layer 3"));
  keep.keep = "0-7";
  EXPECT_EQ(message(keep).subject(), "--keep");
  PruneRequest both;
  both.remove = "3";
  both.method = "bi";
  EXPECT_TRUE(has(message(both).message(), "bi chooses layers, but --remove names them"));
}

TEST(PlanPruning, MethodsThatNeedNoTextNeedNoModelInMemory) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 6}.write_folder(dir / "model");
  const PrunePlan plan = plan_pruning(dir / "model", by_count(2), silent_reporter(), never_stop());
  EXPECT_EQ(plan.chosen.removed, (Layers{4, 5}));
  EXPECT_EQ(plan.kept, (Layers{0, 1, 2, 3}));
  EXPECT_EQ(plan.scores.block_forwards, 0);
  EXPECT_FALSE(plan.runner_up.has_value());
  PruneRequest all_but_one = by_count(5);
  all_but_one.force = true;
  EXPECT_EQ(plan_pruning(dir / "model", all_but_one, silent_reporter(), never_stop()).kept,
            (Layers{0}));
}

TEST(PlanPruning, Refusals) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 4}.write_folder(dir / "model");
  const auto refusal = [&](const PruneRequest& request) {
    return error_of([&] { plan_pruning(dir / "model", request, silent_reporter(), never_stop()); });
  };
  EXPECT_TRUE(has(refusal(by_count(3)).hint_text(), "--force"));  // reverse takes 1, 2, 3
  EXPECT_TRUE(has(refusal(by_count(1, "bi")).message(), "`bi` is computed from text"));
  EXPECT_TRUE(has(refusal(by_count(1, "auto")).message(), "`angular` is computed from text"));
  EXPECT_TRUE(has(refusal(by_count(1, "nonsense")).hint_text(), "angular"));
  PruneRequest other = by_count(1, "bi");
  other.scores_file = dir / "scores.json";
  write_file_atomically(dir / "scores.json",
                        R"({"n_layers": 5, "metrics": {"bi": [1, 2, 3, 4, 5]}})");
  EXPECT_TRUE(has(refusal(other).message(), "holds scores of 5 layers, but the model has 4"));
}

TEST(PlanPruning, ScoresFromAFile) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 4}.write_folder(dir / "model");
  write_file_atomically(dir / "scores.json", R"({"n_layers": 4, "metrics": {"bi": [9, 8, 7, 1]}})");
  PruneRequest request = by_count(1, "bi");
  request.scores_file = dir / "scores.json";
  EXPECT_EQ(plan_pruning(dir / "model", request, silent_reporter(), never_stop()).chosen.removed,
            (Layers{3}));
}

TEST(PlanPruning, AnOrderFileChoosesByItself) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 6}.write_folder(dir / "model");
  write_file_atomically(dir / "order.csv", "4,2,5\n");
  PruneRequest request = by_count(2, "auto");
  request.scores_file = dir / "order.csv";
  const PrunePlan plan = plan_pruning(dir / "model", request, silent_reporter(), never_stop());
  EXPECT_EQ(plan.chosen.method, "order");
  EXPECT_EQ(plan.chosen.removed, (Layers{2, 4}));
  const auto refusal = [&] {
    return error_of([&] { plan_pruning(dir / "model", request, silent_reporter(), never_stop()); });
  };
  request.method = "ppl";
  EXPECT_TRUE(has(refusal().message(), "ppl chooses layers, but"));
  request.method = "auto";
  request.count = 4;
  EXPECT_TRUE(has(refusal().message(), "at most 3 can go, 4 are asked for"));
  request.scores_file.reset();
  request.method = "order";
  EXPECT_TRUE(has(refusal().hint_text(), "--scores block_order.csv"));
}

TEST(PlanPruning, PlusTakesTheNumbersOfItsBase) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 8}.write_folder(dir / "model");
  write_file_atomically(dir / "scores.json",
                        R"({"n_layers": 8, "metrics": {"taylor": [0, 1, 2, 3, 9, 8, 1, 0]}})");
  PruneRequest request = by_count(1, "taylor+");
  request.scores_file = dir / "scores.json";
  const PrunePlan plan = plan_pruning(dir / "model", request, silent_reporter(), never_stop());
  EXPECT_EQ(plan.chosen.removed, (Layers{5}));
  request.count = 3;
  EXPECT_TRUE(has(error_of([&] {
                    plan_pruning(dir / "model", request, silent_reporter(), never_stop());
                  }).message(),
                  "never removes layers 0-3,6-7: of 8 layers at most 2 can go"));
}

TEST(PlanPruning, PlansOfOthersAreListsOfLayers) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 6}.write_folder(dir / "model");
  PruneRequest request;
  request.kept = Layers{0, 1, 2, 5};
  EXPECT_EQ(plan_pruning(dir / "model", request, silent_reporter(), never_stop()).chosen.removed,
            (Layers{3, 4}));
  request.kept = Layers{0, 1, 2, 3, 4, 5};
  const auto refusal = [&] {
    return error_of([&] { plan_pruning(dir / "model", request, silent_reporter(), never_stop()); });
  };
  EXPECT_EQ(refusal().subject(), "--plan");
  request.kept = Layers{0, 1};
  request.count = 2;
  EXPECT_TRUE(has(refusal().message(), "2 of --remove, --keep, --plan"));
  request.count.reset();
  request.method = "bi";
  EXPECT_TRUE(has(refusal().message(), "bi chooses layers, but --plan names them"));
  request.method = "auto";
  request.kept = Layers{0, 9};
  EXPECT_EQ(refusal().kind(), ErrorKind::kUsage);
}

TEST(PlanPruning, GreedyCountsAreCheckedBeforeAnyWork) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 4}.write_folder(dir / "model");
  PruneRequest request = by_count(3, "sleb");
  request.calibration_file = dir / "absent.txt";
  const Error error =
      error_of([&] { plan_pruning(dir / "model", request, silent_reporter(), never_stop()); });
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_TRUE(has(error.message(), "of 4 layers 1 to 2 can go, found 3"));
}

TEST(ModelCard, NamesAndLicences) {
  TemporaryFolder dir;
  std::filesystem::create_directory(dir / "a model");
  EXPECT_EQ(model_name(dir / "a model/"), "a model");
  EXPECT_EQ(source_licence(dir / "a model"), "");
  write_file_atomically(dir / "a model/README.md",
                        "---\nlanguage: en\nlicense: apache-2.0\n---\n# x\n");
  EXPECT_EQ(source_licence(dir / "a model"), "apache-2.0");
  EXPECT_TRUE(has(card_front_matter(dir / "a model"), "license: apache-2.0"));
  EXPECT_EQ(markdown_table({"a", "b"}, {{"1", "2"}}), "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
}

TEST(PruneJob, FolderOutputIsCompleteAndDescribed) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 6}.write_folder(dir / "model");
  PruneJob job;
  job.source = dir / "model";
  job.command_line = "espalier prune model --count 2";
  const PrunePlan plan = plan_pruning(job.source, by_count(2), silent_reporter(), never_stop());
  {
    RunFolder run = RunFolder::create(dir / "out", OutputPolicy::kFresh, {.verb = "prune"});
    const PruneOutcome outcome =
        write_pruned_folder(job, plan, run, silent_reporter(), never_stop());
    EXPECT_FALSE(outcome.comparison.has_value());
    EXPECT_GT(outcome.bytes, 0u);
    run.publish();
  }
  const Json record = read_json_file(dir / "out/espalier_pruning.json");
  EXPECT_EQ(record["method"], "reverse");
  EXPECT_EQ(record["layers_before"], 6);
  EXPECT_EQ(record["kept"].dump(), "[0,1,2,3]");
  EXPECT_EQ(record["removed"].dump(), "[4,5]");
  EXPECT_EQ(record["scores"]["reverse"].size(), 6u);
  const std::string card = read_file(dir / "out/README.md");
  EXPECT_TRUE(has(card, "base_model: model"));
  EXPECT_TRUE(has(card, "Layers 4-5 of `model` were removed"));
  EXPECT_TRUE(has(card, job.command_line));
  EXPECT_TRUE(has(read_file(dir / "out/mergekit.yaml"), "layer_range: [0, 4]"));
  EXPECT_TRUE(std::filesystem::exists(dir / "out/run/manifest.json"));
  EXPECT_NO_THROW(DecoderCheckpoint::open(dir / "out"));
}

TEST(Redundancy, FilesAndDocument) {
  TemporaryFolder dir;
  RedundancyResult result;
  result.model = "tiny";
  result.remove = 2;
  result.scores.layers = 4;
  result.scores.metrics["bi"] = {0.9, 0.2, 0.1, 0.3};
  result.scores.metrics["angular"] = {0.5, 0.4, 0.6, std::nan("")};
  result.scores.cka = at::eye(4, at::kDouble);
  result.choices = choices_of(result.scores, 2);
  result.msrs = msrs(result.scores.cka);
  ASSERT_EQ(result.choices.size(), 2u);
  EXPECT_EQ(result.choices[0].removed, (Layers{1, 2}));
  EXPECT_EQ(result.choices[1].removed, (Layers{1, 2}));
  std::filesystem::create_directory(dir / "out");
  write_redundancy(result, dir / "out");
  EXPECT_EQ(read_file(dir / "out/block_order_bi.csv"), "2,1,3,0\n");
  EXPECT_TRUE(has(read_file(dir / "out/cka.csv"), "1,0,0,0"));
  EXPECT_TRUE(has(read_file(dir / "out/run/report.html"), "Redundancy of tiny"));
  const Json json = parse_json(redundancy_json(result), "");
  EXPECT_EQ(json["schema"], "espalier.redundancy/1");
  EXPECT_EQ(json["layers"], 4);
  EXPECT_EQ(json["metrics"]["angular"][3], nullptr);
  EXPECT_EQ(json["cka"].size(), 4u);
  EXPECT_EQ(json["share"].size(), 4u);
  EXPECT_EQ(json["calibration"]["samples"], 0);
  EXPECT_TRUE(has(redundancy_table(result), "0.9000"));
}

}  // namespace
}  // namespace espalier::layer_pruning
