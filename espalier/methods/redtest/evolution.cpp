// See evolution.h.
#include "espalier/methods/redtest/evolution.h"

#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier::redtest {
namespace {

constexpr std::int64_t kProposalsPerEvaluation = 100;

}  // namespace

void check_rules(const SearchRules& rules) {
  const auto at_least_one = [](const char* flag, std::int64_t value) {
    if (value >= 1) return;
    throw Error(ErrorKind::kUsage, flag, format("is {}, but must be at least 1", value));
  };
  at_least_one("--evaluations", rules.evaluations);
  at_least_one("--population", rules.population);
  at_least_one("--sample", rules.sample);
  at_least_one("--lag", rules.lag);
  if (rules.evaluations > kTssReachable) {
    throw Error(ErrorKind::kUsage, "--evaluations",
                format("is {}, but only {} cells of the space have a path from input to output",
                       rules.evaluations, kTssReachable))
        .hint(format("--evaluations {}", kTssReachable));
  }
  if (rules.strategy == SearchStrategy::kEvolution && rules.lag > rules.population) {
    throw Error(ErrorKind::kUsage, "--lag",
                format("is {}, more than the population of {}: the first child would have no "
                       "parent to come from",
                       rules.lag, rules.population))
        .hint(format("--lag {} --population {}", rules.population, rules.population));
  }
}

Proposals::Proposals(const SearchRules& rules) : rules_(rules) { check_rules(rules); }

bool Proposals::finished() const {
  return distinct() >= rules_.evaluations ||
         static_cast<std::int64_t>(history_.size()) >= kProposalsPerEvaluation * rules_.evaluations;
}

std::int64_t Proposals::newest_visible() const {
  return static_cast<std::int64_t>(history_.size()) - rules_.lag;
}

bool Proposals::is_random() const {
  return rules_.strategy == SearchStrategy::kRandom ||
         static_cast<std::int64_t>(history_.size()) < rules_.population;
}

bool Proposals::ready() const {
  if (is_random()) return true;
  // Older ones have died: their fitness is not asked for.
  for (std::int64_t i = newest_visible(); i >= 0 && i > newest_visible() - rules_.population; --i)
    if (!fitness_.contains(cell_id(history_[static_cast<std::size_t>(i)].cell))) return false;
  return true;
}

NatsCell Proposals::random_cell(RandomStream& stream) {
  for (;;) {
    const NatsCell cell = draw_cell(stream);
    if (nats_paths(cell) == 0) {
      rejected_.push_back(cell_id(cell));
    } else if (!seen_.contains(cell_id(cell))) {
      return cell;
    }
  }
}

std::int64_t Proposals::tournament(RandomStream& stream) const {
  const std::int64_t newest = newest_visible();
  const std::int64_t oldest = std::max<std::int64_t>(0, newest - rules_.population + 1);
  const auto fitness = [&](std::int64_t i) {
    return fitness_.at(cell_id(history_[static_cast<std::size_t>(i)].cell));
  };
  std::int64_t winner = -1;
  for (std::int64_t drawn = 0; drawn < rules_.sample; ++drawn) {
    const std::int64_t one =
        oldest +
        static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(newest - oldest + 1)));
    if (winner < 0 || fitness(one) > fitness(winner)) winner = one;
  }
  return winner;
}

const Proposal& Proposals::next() {
  ESPALIER_ASSERT(ready() && !finished());
  RandomStream stream(rules_.seed, "search proposal", 0,
                      static_cast<std::int64_t>(history_.size()));
  Proposal proposal;
  if (is_random()) {
    proposal.cell = random_cell(stream);
  } else {
    proposal.parent = tournament(stream);
    const NatsCell& parent = history_[static_cast<std::size_t>(proposal.parent)].cell;
    for (;;) {
      proposal.cell = mutate_cell(parent, stream);
      if (nats_paths(proposal.cell) > 0) break;
      rejected_.push_back(cell_id(proposal.cell));
    }
  }
  proposal.repeated = !seen_.insert(cell_id(proposal.cell)).second;
  history_.push_back(proposal);
  return history_.back();
}

void Proposals::learn(const NatsCell& cell, double fitness) {
  ESPALIER_ASSERT(seen_.contains(cell_id(cell)));
  fitness_.emplace(cell_id(cell), fitness);
}

}  // namespace espalier::redtest
