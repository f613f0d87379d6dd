// The search with made-up accuracies: rejection, jobs, resuming, budgets, failures, what is
// written.
#include "espalier/methods/redtest/search.h"

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/methods/redtest/search_report.h"

#include "tests/support/thrown_by.h"

namespace espalier::redtest {
namespace {

using testing_support::thrown_by;

namespace fs = std::filesystem;

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

NatsCell cell_of(const std::string& id) { return tss_cell(std::stoll(id, nullptr, 5)); }

/// Accuracy rises with 3x3 convolutions, redundancy with skip connections and pooling.
CellResult made_up(const NatsCell& cell) {
  double accuracy = 0.5, alike = 0.05;
  for (const NatsOp op : cell.edges) {
    if (op == NatsOp::kConv3x3) accuracy += 0.06;
    if (op == NatsOp::kConv1x1) accuracy += 0.05;
    if (op == NatsOp::kSkip || op == NatsOp::kAvgPool3x3) alike += 0.1, accuracy += 0.02;
  }
  const auto noise = static_cast<double>(stream_seed(1, cell_id(cell)) % 1000);
  CellResult result;
  result.accuracy = accuracy + noise * 1e-5;
  result.msrs_normalised = alike;
  result.msrs = 153 * alike;
  result.parameters = 1000 + static_cast<std::int64_t>(noise);
  return result;
}

/// Counts what is trained; stops or fails where a test wants it.
class Trainer {
 public:
  SearchHooks hooks() {
    SearchHooks hooks;
    hooks.evaluate = [this](const NatsCell& cell, const fs::path& weights, Reporter&) {
      return evaluate(cell, weights);
    };
    return hooks;
  }
  std::map<std::string, int> trained;
  std::int64_t stop_before = -1;  // call number at which the user presses Ctrl-C
  std::function<void(const NatsCell&)> before = [](const NatsCell&) {};

 private:
  CellResult evaluate(const NatsCell& cell, const fs::path& weights) {
    {
      const std::lock_guard lock(mutex_);
      if (calls_++ == stop_before) throw Interrupted{"in the middle"};
      ++trained[cell_id(cell)];
    }
    before(cell);
    if (!weights.empty()) {
      fs::create_directories(weights);
      write_file_atomically(weights / "config.json", cell_id(cell));
    }
    return made_up(cell);
  }
  std::mutex mutex_;
  std::int64_t calls_ = 0;
};

SearchRequest request_of(std::int64_t evaluations) {
  SearchRequest request;
  request.rules.evaluations = evaluations;
  request.rules.seed = 7;
  request.settings = "made up";
  return request;
}

SearchOutcome search(const SearchRequest& request, Trainer& trainer, const fs::path& out,
                     OutputPolicy policy = OutputPolicy::kFresh) {
  RunFolder run = RunFolder::create(out, policy, {});
  SearchOutcome outcome =
      run_search(request, trainer.hooks(), run, silent_reporter(), never_stop());
  if (outcome.complete) run.publish();
  return outcome;
}

/// Without what a clock or the number of processes decides.
std::string comparable(const fs::path& file) {
  Json json = read_json_file(file);
  json.erase("computed");
  for (Json& cell : json["cells"]) cell.erase("seconds");
  return json.dump();
}

TEST(Search, TrainsEachCellOnceAndNoneWithoutAPath) {
  TempFolder dir;
  Trainer trainer;
  const SearchOutcome outcome = search(request_of(60), trainer, dir / "out");
  EXPECT_TRUE(outcome.complete);
  EXPECT_EQ(outcome.cells.size(), 60u);
  EXPECT_EQ(outcome.computed, 60);
  EXPECT_EQ(trainer.trained.size(), 60u);
  for (const auto& [id, count] : trainer.trained) {
    EXPECT_EQ(count, 1) << id;
    EXPECT_GT(nats_paths(cell_of(id)), 0) << id;
    EXPECT_TRUE(fs::exists(dir / "out" / "cells" / (id + ".json"))) << id;
  }
  const SearchHistory& history = outcome.searches.front();
  EXPECT_GT(history.rejected.size(), 0u);
  for (const std::string& id : history.rejected) EXPECT_EQ(nats_paths(cell_of(id)), 0) << id;
  const SearchedCell& chosen = outcome.cells[static_cast<std::size_t>(history.choice.chosen)];
  EXPECT_EQ(read_file(dir / "out" / "arch.txt"), nats_cell_text(chosen.cell) + "\n");
  EXPECT_TRUE(fs::exists(dir / "out" / "run" / "report.html"));
  EXPECT_FALSE(fs::exists(dir / "out" / "model"));
  EXPECT_FALSE(fs::exists(dir / "out.partial"));
}

TEST(Search, DoesNotDependOnTheNumberOfJobs) {
  TempFolder dir;
  SearchRequest request = request_of(50);
  request.fitness = {{"redundancy", 0.2}, {"plain", 0}};
  Trainer one;
  search(request, one, dir / "one");
  for (const std::int64_t jobs : {2, 4}) {
    request.jobs = jobs;
    std::atomic<int> running = 0, most = 0;
    Trainer many;
    many.before = [&](const NatsCell& cell) {
      const int now = ++running;
      for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
      }
      // Some take longer, so that they end in another order than they began.
      std::this_thread::sleep_for(std::chrono::milliseconds(stream_seed(2, cell_id(cell)) % 4));
      --running;
    };
    search(request, many, dir / "many", OutputPolicy::kOverwrite);
    EXPECT_EQ(comparable(dir / "one/search.json"), comparable(dir / "many/search.json")) << jobs;
    EXPECT_GT(most, 1);
    EXPECT_LE(most, jobs);
  }
}

TEST(Search, ResumedIsEqualToUninterrupted) {
  TempFolder dir;
  const SearchRequest request = request_of(40);
  Trainer whole;
  search(request, whole, dir / "whole");
  std::map<std::string, int> trained;
  for (const std::int64_t stop : {0, 3, 14, -1}) {
    Trainer part;
    part.stop_before = stop;
    try {
      search(request, part, dir / "parts", OutputPolicy::kResume);
      EXPECT_EQ(stop, -1);
    } catch (const Interrupted& interrupted) {
      EXPECT_NE(stop, -1);
      EXPECT_TRUE(has(interrupted.saved, "the same command with --resume goes on"));
      EXPECT_TRUE(fs::exists(dir / "parts.partial" / "search.json"));
      EXPECT_FALSE(fs::exists(dir / "parts"));
    }
    for (const auto& [id, count] : part.trained) trained[id] += count;
  }
  EXPECT_EQ(trained, whole.trained) << "no cell was trained twice";
  EXPECT_EQ(comparable(dir / "parts/search.json"), comparable(dir / "whole/search.json"));
}

TEST(Search, TheTimeBudgetLeavesSomethingToResume) {
  TempFolder dir;
  SearchRequest request = request_of(12);
  request.time_budget = 1e-9;
  Trainer trainer;
  SearchOutcome outcome = search(request, trainer, dir / "out");
  EXPECT_FALSE(outcome.complete);
  EXPECT_EQ(outcome.computed, 0);
  EXPECT_EQ(outcome.searches.front().choice.chosen, -1);
  request.time_budget = 0;
  trainer.stop_before = 5;
  EXPECT_THROW(search(request, trainer, dir / "out", OutputPolicy::kResume), Interrupted);
  // Known cells cost nothing: they are taken although the budget is used up.
  request.time_budget = 1e-9;
  outcome = search(request, trainer, dir / "out", OutputPolicy::kResume);
  EXPECT_EQ(outcome.cells.size(), 5u);
  EXPECT_EQ(outcome.computed, 0);
  request.time_budget = 1000;
  EXPECT_TRUE(search(request, trainer, dir / "out", OutputPolicy::kResume).complete);
}

class StoppedToken final : public StopToken {
 public:
  bool stop_requested() const override { return true; }
};

TEST(Search, AStopRequestBeginsNoCell) {
  TempFolder dir;
  Trainer trainer;
  RunFolder run = RunFolder::create(dir / "out", OutputPolicy::kFresh, {});
  try {
    run_search(request_of(12), trainer.hooks(), run, silent_reporter(), StoppedToken());
    ADD_FAILURE() << "was not stopped";
  } catch (const Interrupted& interrupted) {
    EXPECT_TRUE(has(interrupted.saved, "0 cells are trained")) << interrupted.saved;
  }
  EXPECT_TRUE(trainer.trained.empty());
}

TEST(Search, OtherSettingsAreOtherResults) {
  TempFolder dir;
  SearchRequest request = request_of(12);
  request.time_budget = 1000;
  Trainer trainer;
  trainer.stop_before = 6;
  EXPECT_THROW(search(request, trainer, dir / "out"), Interrupted);
  request.settings = "other epochs";
  const SearchOutcome outcome = search(request, trainer, dir / "out", OutputPolicy::kResume);
  EXPECT_EQ(outcome.computed, 12);
}

TEST(Search, TwoFitnessesShareCellsAndHaveTheSameBudget) {
  TempFolder dir;
  SearchRequest request = request_of(40);
  request.fitness = {{"redundancy", 0.5}, {"plain", 0}};
  Trainer trainer;
  const SearchOutcome outcome = search(request, trainer, dir / "out");
  ASSERT_EQ(outcome.searches.size(), 2u);
  for (const auto& [id, count] : trainer.trained) EXPECT_EQ(count, 1) << id;
  const SearchHistory &aware = outcome.searches[0], &plain = outcome.searches[1];
  EXPECT_EQ(aware.cells.size(), 40u);
  EXPECT_EQ(plain.cells.size(), 40u);
  EXPECT_EQ(outcome.cells.size(), trainer.trained.size());
  EXPECT_LE(outcome.cells.size(), 70u) << "the first ten are the same";
  for (std::size_t i = 0; i < 10; ++i) EXPECT_EQ(aware.cells[i], plain.cells[i]);
  EXPECT_NE(aware.cells, plain.cells);
  const auto mean_msrs = [&](const SearchHistory& history) {
    double sum = 0;
    for (const std::int64_t i : history.cells)
      sum += outcome.cells[static_cast<std::size_t>(i)].result.msrs_normalised;
    return sum / 40;
  };
  EXPECT_LT(mean_msrs(aware), mean_msrs(plain)) << "what the fitness is for";
  // The plain search alone finds what it finds in company.
  request.fitness = {{"plain", 0}};
  Trainer alone;
  const SearchOutcome single = search(request, alone, dir / "alone");
  ASSERT_EQ(single.searches[0].proposals.size(), plain.proposals.size());
  for (std::size_t i = 0; i < plain.proposals.size(); ++i)
    EXPECT_EQ(single.searches[0].proposals[i].cell, plain.proposals[i].cell);
}

TEST(Search, ACellThatDoesNotTrainIsAResult) {
  TempFolder dir;
  Trainer trainer;
  int failures = 0;
  trainer.before = [&](const NatsCell& cell) {
    if (stream_seed(3, cell_id(cell)) % 3 != 0) return;
    ++failures;
    throw Error(ErrorKind::kInput, "step 3", "the loss is nan");
  };
  const SearchOutcome outcome = search(request_of(30), trainer, dir / "out");
  EXPECT_TRUE(outcome.complete);
  EXPECT_GT(failures, 3);
  int failed = 0;
  for (const SearchedCell& cell : outcome.cells) failed += cell.result.failed.empty() ? 0 : 1;
  EXPECT_EQ(failed, failures);
  const std::int64_t chosen = outcome.searches[0].choice.chosen;
  EXPECT_EQ(outcome.cells[static_cast<std::size_t>(chosen)].result.failed, "");
  EXPECT_TRUE(has(read_file(dir / "out/search.json"), "step 3: the loss is nan"));
}

TEST(Search, OtherFailuresEndIt) {
  TempFolder dir;
  SearchRequest request = request_of(30);
  for (const std::int64_t jobs : {1, 3}) {
    request.jobs = jobs;
    Trainer trainer;
    trainer.before = [](const NatsCell&) {
      throw Error(ErrorKind::kResource, "device", "no memory left");
    };
    const Error error = thrown_by([&] { search(request, trainer, dir / "out"); });
    EXPECT_EQ(error.kind(), ErrorKind::kResource);
    EXPECT_FALSE(fs::exists(dir / "out.partial")) << "nothing was trained, nothing is left";
  }
  request.jobs = 1;
  Trainer trainer;
  trainer.before = [](const NatsCell&) { throw Error(ErrorKind::kInput, "step 1", "is nan"); };
  const Error error = thrown_by([&] { search(request, trainer, dir / "out"); });
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  EXPECT_EQ(error.message(), "all 30 cells failed, the first with: step 1: is nan");
  EXPECT_EQ(error.hint_text(), "use a lower --lr");
}

TEST(Search, MoreJobsThanTheLagAreRefused) {
  TempFolder dir;
  SearchRequest request = request_of(30);
  request.jobs = 5;
  Trainer trainer;
  const Error error = thrown_by([&] { search(request, trainer, dir / "out"); });
  EXPECT_EQ(error.subject(), "--jobs");
  EXPECT_EQ(error.message(), "is 5, but with --lag 4 no more than 4 cells are trained at a time");
  EXPECT_EQ(error.hint_text(), "--jobs 4, or --lag 5, which is another search");
  request.rules.strategy = SearchStrategy::kRandom;
  EXPECT_TRUE(search(request, trainer, dir / "out").complete) << "sampling has no lag";
}

TEST(Search, WeightsOfTheChosenCellStay) {
  TempFolder dir;
  SearchRequest request = request_of(30);
  request.fitness = {{"redundancy", 0.2}, {"plain", 0}};
  request.keep_weights = true;
  Trainer trainer;
  const SearchOutcome outcome = search(request, trainer, dir / "out");
  const auto chosen = static_cast<std::size_t>(outcome.searches[0].choice.chosen);
  EXPECT_EQ(read_file(dir / "out/model/config.json"), cell_id(outcome.cells[chosen].cell));
  EXPECT_FALSE(fs::exists(dir / "out/run/weights"));
  // Asked for later: the cells are known, the chosen one is trained again.
  request.keep_weights = false;
  Trainer first, second;
  first.stop_before = 20;
  EXPECT_THROW(search(request, first, dir / "late"), Interrupted);
  first.stop_before = -1;
  request.fitness = {{"redundancy", 0.2}};
  request.rules.evaluations = 20;
  request.keep_weights = true;
  search(request, second, dir / "late", OutputPolicy::kResume);
  EXPECT_EQ(second.trained.size(), 1u);
  EXPECT_TRUE(fs::exists(dir / "late/model/config.json"));
}

TEST(SearchJson, HoldsTheContract) {
  TempFolder dir;
  SearchRequest request = request_of(25);
  request.fitness = {{"redundancy", 0.2}, {"plain", 0}};
  Trainer trainer;
  const SearchOutcome outcome = search(request, trainer, dir / "out");
  const Json json = read_json_file(dir / "out/search.json");
  EXPECT_EQ(json["schema"], "espalier.search/1");
  EXPECT_EQ(json["space"], "nats-tss");
  EXPECT_EQ(json["fitness"], "redundancy");
  EXPECT_EQ(json["lambda"], 0.2);
  EXPECT_EQ(json["evaluations"], 25);
  EXPECT_EQ(json["rejected"], outcome.searches[0].rejected.size());
  EXPECT_EQ(json["complete"], true);
  ASSERT_EQ(json["cells"].size(), outcome.cells.size());
  const Json& cell = json["cells"][0];
  EXPECT_EQ(cell["arch"], nats_cell_text(outcome.cells[0].cell));
  EXPECT_EQ(cell["accuracy"], outcome.cells[0].result.accuracy);
  EXPECT_EQ(cell["msrs"], outcome.cells[0].result.msrs);
  EXPECT_EQ(cell["msrs_normalised"], outcome.cells[0].result.msrs_normalised);
  EXPECT_EQ(cell["parameters"], outcome.cells[0].result.parameters);
  EXPECT_TRUE(cell["seconds"].is_number());
  EXPECT_TRUE(cell["test_accuracy"].is_null());
  EXPECT_FALSE(cell.contains("settings"));
  const SearchChoice& choice = outcome.searches[0].choice;
  EXPECT_EQ(json["pareto"].size(), choice.pareto.size());
  EXPECT_EQ(json["chosen"]["arch"],
            nats_cell_text(outcome.cells[static_cast<std::size_t>(choice.chosen)].cell));
  EXPECT_EQ(json["searches"][1]["fitness"], "plain");
  EXPECT_EQ(json["searches"][1]["lambda"], 0);
  EXPECT_EQ(json["searches"][1]["proposals"][0]["parent"], nullptr);
  EXPECT_TRUE(json["searches"][1]["proposals"][12]["parent"].is_number());
  const std::string table = search_table(outcome);
  EXPECT_TRUE(has(table, "chosen (redundancy)")) << table;
  EXPECT_TRUE(has(table, "most accurate")) << table;
  const std::string html = read_file(dir / "out/run/report.html");
  EXPECT_TRUE(has(html, "Scatter chart"));
  EXPECT_TRUE(has(html, "by redundancy and plain"));
}

}  // namespace
}  // namespace espalier::redtest
