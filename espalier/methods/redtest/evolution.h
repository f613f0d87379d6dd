// Which cell a search tries next: regularised evolution (Real et al. 2019, arXiv 1802.01548) or
// random sampling. A pure function of the seed and of the results so far; nothing is trained here.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "espalier/methods/redtest/cell_space.h"

namespace espalier::redtest {

enum class SearchStrategy : std::uint8_t { kEvolution, kRandom };

struct SearchRules {
  SearchStrategy strategy = SearchStrategy::kEvolution;
  std::int64_t evaluations = 50;  // distinct cells
  std::int64_t population = 10;   // the newest that many; the first of them are random
  std::int64_t sample = 3;        // drawn from it, with replacement, for each tournament
  /// Proposal t sees the results of the proposals up to t - lag: 1 is the sequential algorithm, L
  /// lets L candidates train at a time. A rule of the search, so that what is found does not depend
  /// on how many really did.
  std::int64_t lag = 4;
  std::uint64_t seed = 0;
};

/// Throws Error(kUsage): more evaluations than reachable cells, counts below 1, lag > population.
void check_rules(const SearchRules& rules);

struct Proposal {
  NatsCell cell;
  std::int64_t parent = -1;  // number of the proposal that it is a mutation of; -1: random
  bool repeated = false;     // an earlier proposal of this search is the same cell
};

/// Proposals in their fixed order. Number t draws from a random stream of its own, named by (seed,
/// t). Random cells are uniform over the reachable ones that this search has not proposed yet. A
/// child comes from the fittest of its tournament (the first drawn among equals) by one mutation,
/// drawn again while no path leads through it. A child that was proposed before joins the
/// population again with its known result: it costs no evaluation.
class Proposals {
 public:
  explicit Proposals(const SearchRules& rules);

  /// All evaluations are given out; or, which takes a hundred children per evaluation, evolution
  /// goes round in known cells.
  bool finished() const;
  /// The results that the next proposal depends on are there.
  bool ready() const;
  const Proposal& next();
  /// `fitness` of a proposed cell; -infinity for one that could not be trained.
  void learn(const NatsCell& cell, double fitness);

  const std::vector<Proposal>& history() const { return history_; }
  std::int64_t distinct() const { return static_cast<std::int64_t>(seen_.size()); }
  /// Names of the cells without a path that were drawn and never proposed, in order.
  const std::vector<std::string>& rejected() const { return rejected_; }

 private:
  std::int64_t newest_visible() const;
  bool is_random() const;
  NatsCell random_cell(RandomStream& stream);
  std::int64_t tournament(RandomStream& stream) const;

  SearchRules rules_;
  std::vector<Proposal> history_;
  std::set<std::string> seen_;
  std::map<std::string, double> fitness_;
  std::vector<std::string> rejected_;
};

}  // namespace espalier::redtest
