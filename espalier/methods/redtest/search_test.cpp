// The search with made-up accuracies: the space, the order of proposals, rejection, the choice,
// jobs, resuming, what is written.
#include "espalier/methods/redtest/search.h"

#include <atomic>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/methods/redtest/search_report.h"

namespace espalier::redtest {
namespace {

namespace fs = std::filesystem;

template <class Fn>
Error thrown_by(Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorKind::kInternal, "", "");
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

int differing_edges(const NatsCell& a, const NatsCell& b) {
  int count = 0;
  for (std::size_t i = 0; i < a.edges.size(); ++i) count += a.edges[i] != b.edges[i] ? 1 : 0;
  return count;
}

NatsCell cell_of(std::string_view id) {
  NatsCell cell;
  for (std::size_t i = 0; i < cell.edges.size(); ++i)
    cell.edges[i] = static_cast<NatsOp>(id[i] - '0');
  return cell;
}

TEST(CellSpace, HoldsEveryCellOnce) {
  std::set<std::string> ids, texts;
  std::int64_t reachable = 0;
  for (std::int64_t i = 0; i < kTssCells; ++i) {
    const NatsCell cell = tss_cell(i);
    ids.insert(cell_id(cell));
    texts.insert(nats_cell_text(cell));
    EXPECT_EQ(parse_nats_cell(nats_cell_text(cell)), cell);
    EXPECT_EQ(cell_of(cell_id(cell)), cell);
    reachable += nats_paths(cell) > 0 ? 1 : 0;
  }
  EXPECT_EQ(ids.size(), 15'625u);
  EXPECT_EQ(texts.size(), 15'625u);
  // Without a path: 0-3 is none (1/5) and neither 0-1-3, 0-2-3 nor 0-1-2-3 is open (341/3125).
  EXPECT_EQ(reachable, 15'625 - 341);
  EXPECT_EQ(reachable, kTssReachable);
  EXPECT_EQ(cell_id(tss_cell(1)), "000001");
  EXPECT_EQ(nats_cell_text(tss_cell(3 * 3125 + 4)),
            "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|avg_pool_3x3~2|");
}

TEST(CellSpace, MutationsAreTheTwentyFourNeighbours) {
  const NatsCell cell = cell_of("310342");
  std::map<std::string, int> seen;
  RandomStream stream(1, "test");
  for (int i = 0; i < 24'000; ++i) {
    const NatsCell child = mutate_cell(cell, stream);
    ASSERT_EQ(differing_edges(cell, child), 1);
    ++seen[cell_id(child)];
  }
  EXPECT_EQ(seen.size(), 24u);
  // 1000 each; a standard deviation is 31.
  for (const auto& [id, count] : seen) EXPECT_NEAR(count, 1000, 160) << id;
}

SearchRules rules_of(std::int64_t evaluations, std::int64_t population, std::int64_t sample,
                     std::int64_t lag, std::uint64_t seed = 7) {
  SearchRules rules;
  rules.evaluations = evaluations;
  rules.population = population;
  rules.sample = sample;
  rules.lag = lag;
  rules.seed = seed;
  return rules;
}

/// Number of the proposal that a cell has first, so that fitness can be given by number.
std::vector<Proposal> run_with(const SearchRules& rules,
                               const std::function<double(std::int64_t)>& fitness) {
  Proposals proposals(rules);
  while (!proposals.finished()) {
    const auto number = static_cast<std::int64_t>(proposals.history().size());
    EXPECT_TRUE(proposals.ready());
    const Proposal& proposal = proposals.next();
    if (!proposal.repeated) proposals.learn(proposal.cell, fitness(number));
  }
  return proposals.history();
}

TEST(Evolution, BeginsWithDistinctReachableRandomCells) {
  const auto history = run_with(rules_of(12, 12, 3, 1), [](std::int64_t) { return 0.0; });
  std::set<std::string> ids;
  for (const Proposal& proposal : history) {
    EXPECT_EQ(proposal.parent, -1);
    EXPECT_GT(nats_paths(proposal.cell), 0);
    ids.insert(cell_id(proposal.cell));
  }
  EXPECT_EQ(ids.size(), 12u);
}

TEST(Evolution, TheFittestOfTheNewestIsTheParentAndTheOldestDies) {
  // Earlier is fitter. A tournament of 400 of five holds every one of them (but for 5 * 0.8^400).
  const auto history =
      run_with(rules_of(15, 5, 400, 1), [](std::int64_t i) { return -static_cast<double>(i); });
  std::map<std::string, std::int64_t> first;
  for (std::size_t t = 0; t < history.size(); ++t) {
    first.emplace(cell_id(history[t].cell), static_cast<std::int64_t>(t));
    if (t < 5) continue;
    // Of t-5 .. t-1 the one whose cell came first.
    std::int64_t expected = -1;
    for (std::size_t i = t - 5; i < t; ++i) {
      const std::int64_t number = static_cast<std::int64_t>(i);
      const auto born = [&](std::int64_t j) {
        return first.at(cell_id(history[static_cast<std::size_t>(j)].cell));
      };
      if (expected < 0 || born(number) < born(expected)) expected = number;
    }
    const NatsCell& parent = history[static_cast<std::size_t>(history[t].parent)].cell;
    EXPECT_EQ(parent, history[static_cast<std::size_t>(expected)].cell) << t;
    EXPECT_EQ(differing_edges(parent, history[t].cell), 1) << t;
    EXPECT_GT(nats_paths(history[t].cell), 0) << t;
  }
  EXPECT_EQ(history[5].parent, 0);
  EXPECT_EQ(history[6].parent, 1) << "the first one has died, fit as it was";
}

TEST(Evolution, WithALagItSeesOlderResultsOnly) {
  const auto history =
      run_with(rules_of(20, 6, 400, 3), [](std::int64_t i) { return static_cast<double>(i); });
  for (std::size_t t = 6; t < history.size(); ++t) {
    EXPECT_LE(history[t].parent, static_cast<std::int64_t>(t) - 3) << t;
    EXPECT_GT(history[t].parent, static_cast<std::int64_t>(t) - 3 - 6) << t;
  }
  EXPECT_EQ(history[6].parent, 3) << "the newest of 0..3 is the fittest";
}

TEST(Evolution, WaitsForTheResultsItNeeds) {
  Proposals proposals(rules_of(20, 4, 2, 2));
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(proposals.ready());
    proposals.next();
  }
  EXPECT_FALSE(proposals.ready()) << "proposal 4 needs 0, 1 and 2";
  for (std::size_t i = 0; i < 2; ++i) proposals.learn(proposals.history()[i].cell, 1);
  EXPECT_FALSE(proposals.ready());
  proposals.learn(proposals.history()[2].cell, 1);
  EXPECT_TRUE(proposals.ready());
  proposals.next();
  EXPECT_FALSE(proposals.ready()) << "proposal 5 needs 3 too";
}

TEST(Evolution, IsAFunctionOfTheSeed) {
  const auto by = [](std::uint64_t seed) {
    std::vector<std::string> ids;
    for (const Proposal& p : run_with(rules_of(30, 10, 3, 4, seed),
                                      [](std::int64_t i) { return static_cast<double>(i % 7); }))
      ids.push_back(cell_id(p.cell));
    return ids;
  };
  EXPECT_EQ(by(3), by(3));
  EXPECT_NE(by(3), by(4));
}

TEST(Evolution, RandomSamplingTakesEachCellOnceAndPathlessOnesNever) {
  SearchRules rules = rules_of(3000, 10, 3, 4);
  rules.strategy = SearchStrategy::kRandom;
  Proposals proposals(rules);
  std::set<std::string> ids;
  while (!proposals.finished()) {
    const Proposal& proposal = proposals.next();
    EXPECT_GT(nats_paths(proposal.cell), 0);
    EXPECT_EQ(proposal.parent, -1);
    ids.insert(cell_id(proposal.cell));
  }
  EXPECT_EQ(ids.size(), 3000u);
  // 341 of 15,625 draws have no path: 2.2 % of some 3,400 draws, 75 give or take 9.
  EXPECT_NEAR(static_cast<double>(proposals.rejected().size()), 75, 45);
  for (const std::string& id : proposals.rejected()) EXPECT_EQ(nats_paths(cell_of(id)), 0) << id;
}

TEST(Evolution, RulesAreChecked) {
  Error error = thrown_by([] { check_rules(rules_of(20'000, 10, 3, 4)); });
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_EQ(error.message(),
            "is 20000, but only 15284 cells of the space have a path from input to output");
  EXPECT_EQ(error.hint_text(), "--evaluations 15284");
  error = thrown_by([] { check_rules(rules_of(20, 3, 3, 4)); });
  EXPECT_EQ(error.subject(), "--lag");
  EXPECT_TRUE(has(error.message(), "is 4, more than the population of 3")) << error.message();
  EXPECT_EQ(error.hint_text(), "--lag 3 --population 3");
  for (const auto& [subject, rules] :
       std::map<std::string, SearchRules>{{"--evaluations", rules_of(0, 10, 3, 4)},
                                          {"--population", rules_of(5, 0, 3, 4)},
                                          {"--sample", rules_of(5, 10, 0, 4)},
                                          {"--lag", rules_of(5, 10, 3, 0)}}) {
    error = thrown_by([&rules = rules] { check_rules(rules); });
    EXPECT_EQ(error.subject(), subject);
    EXPECT_EQ(error.message(), "is 0, but must be at least 1");
  }
}

// ---------------------------------------------------------------------------------------------

CellResult result_of(double accuracy, double msrs_normalised, std::int64_t parameters) {
  CellResult result;
  result.accuracy = accuracy;
  result.msrs_normalised = msrs_normalised;
  result.msrs = 153 * msrs_normalised;
  result.parameters = parameters;
  return result;
}

TEST(Choice, SmallestRedundancyAmongThoseNearTheBest) {
  std::vector<SearchedCell> cells{{tss_cell(15'000), result_of(0.90, 0.60, 900)},
                                  {tss_cell(15'001), result_of(0.89, 0.30, 800)},   // just within
                                  {tss_cell(15'002), result_of(0.889, 0.10, 100)},  // just outside
                                  {tss_cell(15'003), result_of(0.895, 0.30, 700)},
                                  {tss_cell(15'004), result_of(0.895, 0.40, 50)}};
  SearchChoice choice = choose_cells(cells, 1.0);
  EXPECT_EQ(choice.best, 0);
  EXPECT_EQ(choice.survivors, (std::vector<std::int64_t>{0, 1, 3, 4}));
  EXPECT_EQ(choice.chosen, 3) << "the tie of 0.30 goes to fewer parameters";
  EXPECT_EQ(choose_cells(cells, 0).chosen, 0);
  EXPECT_EQ(choose_cells(cells, 2).chosen, 2);
  cells[2].result.failed = "NaN";
  cells[0].result.failed = "NaN";
  choice = choose_cells(cells, 1.0);
  EXPECT_EQ(choice.best, 3) << "the tie of 0.895 goes to the less redundant";
  EXPECT_EQ(choice.chosen, 3);
  for (SearchedCell& cell : cells) cell.result.failed = "NaN";
  EXPECT_EQ(choose_cells(cells, 1.0).chosen, -1);
  EXPECT_TRUE(choose_cells({}, 1.0).pareto.empty());
}

TEST(Choice, ParetoFrontOfThreeNumbers) {
  const std::vector<SearchedCell> cells{{tss_cell(1), result_of(0.80, 0.2, 100)},
                                        {tss_cell(2), result_of(0.90, 0.5, 300)},
                                        {tss_cell(3), result_of(0.85, 0.5, 300)},   // worse than 1
                                        {tss_cell(4), result_of(0.85, 0.6, 90)},    // smallest
                                        {tss_cell(5), result_of(0.80, 0.2, 100)},   // equal to 0
                                        {tss_cell(6), result_of(0.79, 0.2, 100)}};  // worse than 0
  EXPECT_EQ(choose_cells(cells, 1.0).pareto, (std::vector<std::int64_t>{1, 3, 0, 4}));
}

TEST(Choice, Fitness) {
  EXPECT_DOUBLE_EQ(cell_fitness(result_of(0.9, 0.5, 1), 0.1), 0.85);
  EXPECT_DOUBLE_EQ(cell_fitness(result_of(0.9, 0.5, 1), 0), 0.9);
  CellResult failed = result_of(0.9, 0.5, 1);
  failed.failed = "NaN";
  EXPECT_TRUE(std::isinf(cell_fitness(failed, 0)));
}

TEST(CellFile, RoundTripsBitByBitAndOthersAreNotTaken) {
  TempFolder dir;
  const NatsCell cell = cell_of("310342");
  CellResult result = result_of(1.0 / 3, 0.1 + 0.2, 1'073'466);
  result.accuracy_stderr = std::sqrt(2) / 100;
  result.images = 5000;
  result.degenerate = 2;
  result.seconds = 12.5;
  write_file_atomically(dir / "c.json", cell_to_json(cell, result, "settings"));
  auto back = cell_from_json(dir / "c.json", cell, "settings");
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->accuracy, 1.0 / 3);
  EXPECT_EQ(back->accuracy_stderr, result.accuracy_stderr);
  EXPECT_EQ(back->msrs_normalised, 0.1 + 0.2);
  EXPECT_EQ(back->msrs, result.msrs);
  EXPECT_EQ(back->parameters, 1'073'466);
  EXPECT_EQ(back->images, 5000);
  EXPECT_EQ(back->degenerate, 2);
  EXPECT_EQ(back->seconds, 12.5);
  EXPECT_FALSE(back->test_accuracy);
  EXPECT_EQ(back->failed, "");
  EXPECT_FALSE(cell_from_json(dir / "c.json", cell, "other settings"));
  EXPECT_FALSE(cell_from_json(dir / "c.json", cell_of("310341"), "settings"));
  EXPECT_FALSE(cell_from_json(dir / "none.json", cell, "settings"));
  result.test_accuracy = 0.0;
  result.failed = "loss is nan";
  write_file_atomically(dir / "c.json", cell_to_json(cell, result, "settings"));
  back = cell_from_json(dir / "c.json", cell, "settings");
  EXPECT_EQ(back->failed, "loss is nan");
  EXPECT_EQ(back->test_accuracy, 0.0);
  write_file_atomically(dir / "c.json", "{");
  EXPECT_EQ(thrown_by([&] { cell_from_json(dir / "c.json", cell, "s"); }).kind(),
            ErrorKind::kInput);
}

// ---------------------------------------------------------------------------------------------

/// Accuracy rises with 3x3 convolutions, redundancy with skip connections and pooling.
CellResult made_up(const NatsCell& cell) {
  double accuracy = 0.5, alike = 0.05;
  for (const NatsOp op : cell.edges) {
    if (op == NatsOp::kConv3x3) accuracy += 0.06;
    if (op == NatsOp::kConv1x1) accuracy += 0.05;
    if (op == NatsOp::kSkip || op == NatsOp::kAvgPool3x3) alike += 0.1, accuracy += 0.02;
  }
  const auto noise = static_cast<double>(stream_seed(1, cell_id(cell)) % 1000);
  return result_of(accuracy + noise * 1e-5, alike, 1000 + static_cast<std::int64_t>(noise));
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
  request.rules = rules_of(evaluations, 10, 3, 4);
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
