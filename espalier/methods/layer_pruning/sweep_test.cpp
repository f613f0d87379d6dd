// Sweeps: recoveries, cells and their files, sharing, resuming, budgets, failures, the table.
#include "espalier/methods/layer_pruning/sweep.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/json_internal.h"
#include "espalier/methods/layer_pruning/scratch_model.h"
#include "espalier/methods/layer_pruning/sweep_report.h"

#include "tests/support/tiny_model.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;

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

TEST(Recovery, FormsAndRefusals) {
  EXPECT_FALSE(parse_recovery("none").trains());
  EXPECT_EQ(parse_recovery("head").mode, "partial");
  EXPECT_EQ(parse_recovery("head").last, 0);
  EXPECT_EQ(parse_recovery("partial:0").name, "head");
  EXPECT_EQ(parse_recovery("partial:12").last, 12);
  EXPECT_EQ(parse_recovery("qlora").mode, "qlora");
  for (const char* bad :
       {"partial", "partial:", "partial:-1", "partial:x", "heads", "", "lora:8"}) {
    const Error error = error_of([&] { parse_recovery(bad); });
    EXPECT_EQ(error.kind(), ErrorKind::kUsage) << bad;
    EXPECT_TRUE(has(error.message(), "none, head, partial:K, lora, qlora, dora, full")) << bad;
  }
}

SweepCell cell_of(const char* metric, std::vector<std::int64_t> removed, const char* recovery,
                  double lr = 1e-4) {
  SweepCell cell;
  cell.metric = metric;
  cell.removed = std::move(removed);
  cell.remove = static_cast<std::int64_t>(cell.removed.size());
  cell.recovery = parse_recovery(recovery);
  cell.lr = cell.recovery.trains() ? lr : 0;
  return cell;
}

TEST(SweepCell, NamesAndKeys) {
  EXPECT_EQ(cell_of("bi", {3, 4}, "partial:3").id(), "n02_bi_partial-3_lr1e-04");
  EXPECT_EQ(cell_of("ppl+", {3}, "none").id(), "n01_ppl+_none");
  EXPECT_EQ(cell_of("bi", {3, 4}, "lora").key(), cell_of("angular", {3, 4}, "lora").key());
  EXPECT_NE(cell_of("bi", {3, 4}, "lora").key(), cell_of("bi", {3, 5}, "lora").key());
  EXPECT_NE(cell_of("bi", {3, 4}, "lora").key(), cell_of("bi", {3, 4}, "lora", 1e-3).key());
}

TEST(SweepCell, FilesRoundTripAndOthersAreNotTaken) {
  TemporaryFolder dir;
  const SweepCell cell = cell_of("bi", {3, 4}, "lora");
  SweepResult result;
  read_evaluation(R"({"results": {"ppl": {"perplexity": 12.5, "perplexity_stderr": 0.5},
      "piqa": {"acc": 0.6, "acc_stderr": 0.01}, "arc_easy": {"acc,none": 0.3},
      "odd": {"f1": 1}}})",
                  result);
  read_healing(R"({"trainable_parameters": 77, "tokens": 1000, "training_seconds": 3.5,
      "prefix_seconds": 0.5, "loss_first": 4, "loss_last": 3})",
               result);
  EXPECT_EQ(result.perplexity, 12.5);
  EXPECT_EQ(result.accuracy, (std::map<std::string, double>{{"arc_easy", 0.3}, {"piqa", 0.6}}));
  EXPECT_EQ(result.heal_seconds, 4);
  result.seconds = 9;
  result.bytes = 123;
  write_file_atomically(dir / "c.json", cell_to_json(cell, result, "settings"));
  const auto back = cell_from_json(dir / "c.json", cell, "settings");
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->perplexity, 12.5);
  EXPECT_EQ(back->accuracy, result.accuracy);
  EXPECT_EQ(back->trainable_parameters, 77);
  EXPECT_EQ(back->bytes, 123u);
  EXPECT_TRUE(back->failed.empty());
  EXPECT_FALSE(cell_from_json(dir / "c.json", cell, "other settings").has_value());
  EXPECT_FALSE(
      cell_from_json(dir / "c.json", cell_of("bi", {3, 5}, "lora"), "settings").has_value());
  EXPECT_FALSE(cell_from_json(dir / "absent.json", cell, "settings").has_value());
  write_file_atomically(dir / "list.json", "[1, 2]");
  EXPECT_FALSE(cell_from_json(dir / "list.json", cell, "settings").has_value());
}

TEST(SweepPlan, CellsInOrderAndRefusedOnes) {
  SweepRequest request;
  request.counts = {1, 2};
  request.metrics = {"reverse", "taylor+"};
  request.recoveries = {parse_recovery("none"), parse_recovery("head")};
  request.rates = {1e-5, 1e-4};
  request.scratch = true;
  std::map<std::int64_t, LayerScores> scores;
  for (const std::int64_t count : request.counts) {
    scores[count].layers = 7;
    scores[count].metrics["reverse"] = {6, 5, 4, 3, 2, 1, 0};
    scores[count].metrics["taylor+"] = {0, 0, 0, 0, 0, 0, 0};
  }
  const std::vector<SweepCell> cells = plan_cells(request, scores);
  // dense, then per count 2 metrics x (1 + 2) and 2 from scratch.
  ASSERT_EQ(cells.size(), 1u + 2 * (2 * 3 + 2));
  EXPECT_EQ(cells[0].id(), "dense");
  EXPECT_EQ(cells[1].id(), "n01_reverse_none");
  EXPECT_EQ(cells[3].id(), "n01_reverse_head_lr1e-04");
  EXPECT_EQ(cells[4].removed, (std::vector<std::int64_t>{4}));  // all that taylor+ lets go
  EXPECT_EQ(cells[7].id(), "n01_scratch_lr1e-05");
  EXPECT_TRUE(has(cells[12].refused, "at most 1 can go, 2 are asked for")) << cells[12].refused;
}

/// Trains by copying, evaluates by counting layers; remembers what it was asked.
struct FakeHooks {
  int heals = 0, evaluations = 0, fail_after = 1 << 30;
  SweepHooks hooks() {
    SweepHooks h;
    h.heal = [this](const fs::path& model, const fs::path& healed, const SweepCell& cell) {
      ++heals;
      if (cell.lr > 0.5) throw Error(ErrorKind::kInput, "training", "the loss of step 3 is nan");
      fs::copy(model, healed, fs::copy_options::recursive);
      return std::string(R"({"trainable_parameters": 5, "training_seconds": 1.0})");
    };
    h.evaluate = [this](const fs::path& model) {
      if (++evaluations > fail_after) throw Error(ErrorKind::kResource, "disk", "is full");
      const auto layers = DecoderCheckpoint::open(model)->config().num_layers;
      return format(R"({{"results": {{"ppl": {{"perplexity": {}, "perplexity_stderr": 1}}}}}})",
                    200 - layers);
    };
    return h;
  }
};

SweepRequest tiny_request(const TemporaryFolder& dir) {
  TinyDecoder{.layers = 6}.write_folder(dir / "model");
  SweepRequest request;
  request.model = dir / "model";
  request.counts = {1, 2};
  request.metrics = {"reverse", "mag_l1", "mag_l2"};
  request.recoveries = {parse_recovery("none"), parse_recovery("partial:1")};
  request.rates = {1e-4};
  request.scratch = true;
  request.settings = "s";
  return request;
}

TEST(RunSweep, EveryCellOnceAndEqualRemovalsShared) {
  TemporaryFolder dir;
  const SweepRequest request = tiny_request(dir);
  FakeHooks fake;
  RunFolder run = RunFolder::create(dir / "out", OutputPolicy::kFresh, {.verb = "prune sweep"});
  const SweepOutcome outcome =
      run_sweep(request, fake.hooks(), run, silent_reporter(), never_stop());
  run.publish();
  EXPECT_TRUE(outcome.complete);
  ASSERT_EQ(outcome.rows.size(), 1u + 2 * (3 * 2 + 1));
  std::int64_t shared = 0;
  for (const SweepRow& row : outcome.rows) {
    ASSERT_TRUE(row.result.has_value()) << row.cell.id();
    EXPECT_EQ(row.result->perplexity, 200 - (6 - row.cell.remove)) << row.cell.id();
    EXPECT_GT(row.result->bytes, 0u);
    shared += row.shared_with.empty() ? 0 : 1;
    EXPECT_EQ(fs::exists(dir / "out/cells" / (row.cell.id() + ".json")), row.shared_with.empty());
  }
  EXPECT_EQ(outcome.computed + shared, static_cast<std::int64_t>(outcome.rows.size()));
  EXPECT_EQ(fake.evaluations, outcome.computed);
  EXPECT_TRUE(fs::exists(dir / "out/scores/n02.json"));
  EXPECT_TRUE(fs::exists(dir / "out/run/report.html"));
  EXPECT_TRUE(has(read_file(dir / "out/sweep.csv"), "cut,metric,layers removed"));
  EXPECT_FALSE(fs::exists(dir / "out/run/work"));
  const Json json = read_json_file(dir / "out/sweep.json");
  EXPECT_EQ(json["schema"], "espalier.sweep/1");
  EXPECT_EQ(json["complete"], true);
  EXPECT_EQ(json["rows"].size(), outcome.rows.size());
  EXPECT_EQ(json["rows"][0]["state"], "done");
}

TEST(RunSweep, AStoppedSweepGoesOnWithTheNextCell) {
  TemporaryFolder dir;
  const SweepRequest request = tiny_request(dir);
  FakeHooks fake;
  fake.fail_after = 3;
  {
    RunFolder run = RunFolder::create(dir / "out", OutputPolicy::kFresh, {});
    EXPECT_THROW(run_sweep(request, fake.hooks(), run, silent_reporter(), never_stop()), Error);
  }
  EXPECT_FALSE(fs::exists(dir / "out"));
  ASSERT_TRUE(fs::exists(dir / "out.partial/cells/dense.json"));
  FakeHooks again;
  RunFolder run = RunFolder::create(dir / "out", OutputPolicy::kResume, {});
  const SweepOutcome outcome =
      run_sweep(request, again.hooks(), run, silent_reporter(), never_stop());
  EXPECT_TRUE(outcome.complete);
  EXPECT_EQ(outcome.score_seconds, 0);  // read, not computed
  FakeHooks whole;
  RunFolder fresh = RunFolder::create(dir / "fresh", OutputPolicy::kFresh, {});
  const SweepOutcome at_once =
      run_sweep(request, whole.hooks(), fresh, silent_reporter(), never_stop());
  EXPECT_EQ(outcome.computed + 3, at_once.computed);
  // Other settings: nothing of it counts.
  SweepRequest changed = request;
  changed.settings = "t";
  run.keep();
  FakeHooks third;
  const SweepOutcome anew = run_sweep(changed, third.hooks(), run, silent_reporter(), never_stop());
  EXPECT_EQ(anew.computed, at_once.computed);
}

TEST(RunSweep, BudgetStopsBetweenCells) {
  TemporaryFolder dir;
  SweepRequest request = tiny_request(dir);
  request.time_budget = 1e-9;
  FakeHooks fake;
  RunFolder run = RunFolder::create(dir / "out", OutputPolicy::kFresh, {});
  const SweepOutcome outcome =
      run_sweep(request, fake.hooks(), run, silent_reporter(), never_stop());
  EXPECT_FALSE(outcome.complete);
  EXPECT_EQ(outcome.computed, 0);
  EXPECT_TRUE(has(sweep_table(outcome).rows[0].back(), "not run yet"));
}

TEST(RunSweep, AModelThatBreaksIsAResultAndAStopIsNot) {
  TemporaryFolder dir;
  SweepRequest request = tiny_request(dir);
  request.counts = {1};
  request.metrics = {"reverse"};
  request.rates = {1, 1e-4};
  FakeHooks fake;
  RunFolder run = RunFolder::create(dir / "out", OutputPolicy::kFresh, {});
  const SweepOutcome outcome =
      run_sweep(request, fake.hooks(), run, silent_reporter(), never_stop());
  EXPECT_TRUE(outcome.complete);
  ASSERT_EQ(outcome.rows[2].cell.lr, 1);
  EXPECT_TRUE(has(outcome.rows[2].result->failed, "the loss of step 3 is nan"));
  EXPECT_TRUE(has(sweep_table(outcome).rows[2].back(), "failed: training: the loss"));
  for (const auto& row : best_rates(outcome).rows) EXPECT_EQ(row.back(), "");
  struct StopAtOnce final : StopToken {
    bool stop_requested() const override { return true; }
  };
  RunFolder other = RunFolder::create(dir / "other", OutputPolicy::kFresh, {});
  EXPECT_THROW(run_sweep(request, fake.hooks(), other, silent_reporter(), StopAtOnce()),
               Interrupted);
}

TEST(ScratchModel, ShapesOfTheSourceAndFreshWeights) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 5, .qwen2 = true}.write_folder(dir / "model");
  for (const char* name : {"a", "b"})
    write_scratch_model(dir / "model", 3, dir / name, 7, silent_reporter(), never_stop());
  const auto a = DecoderCheckpoint::open(dir / "a"), b = DecoderCheckpoint::open(dir / "b");
  EXPECT_EQ(a->config().num_layers, 3);
  const auto load = [](const auto& checkpoint, const char* name) {
    return checkpoint->load(name, at::kFloat, at::kCPU);
  };
  const at::Tensor up = load(a, "model.layers.1.mlp.up_proj.weight");
  EXPECT_NEAR(up.std().item<double>(), 0.02, 0.002);
  EXPECT_TRUE(at::equal(up, load(b, "model.layers.1.mlp.up_proj.weight")));
  EXPECT_FALSE(at::equal(up, load(a, "model.layers.2.mlp.up_proj.weight")));
  EXPECT_TRUE(load(a, "model.norm.weight").eq(1).all().item<bool>());
  EXPECT_TRUE(load(a, "model.layers.0.self_attn.q_proj.bias").eq(0).all().item<bool>());
  EXPECT_FALSE(fs::exists(dir / "a.shapes"));
}

}  // namespace
}  // namespace espalier::layer_pruning
