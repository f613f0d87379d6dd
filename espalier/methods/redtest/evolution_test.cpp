// The space of cells, and the order in which evolution and sampling propose them.
#include "espalier/methods/redtest/evolution.h"

#include <map>
#include <set>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

#include "tests/support/thrown_by.h"

namespace espalier::redtest {
namespace {

using testing_support::thrown_by;

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

int differing_edges(const NatsCell& a, const NatsCell& b) {
  int count = 0;
  for (std::size_t i = 0; i < a.edges.size(); ++i) count += a.edges[i] != b.edges[i] ? 1 : 0;
  return count;
}

NatsCell cell_of(const std::string& id) { return tss_cell(std::stoll(id, nullptr, 5)); }

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

}  // namespace
}  // namespace espalier::redtest
