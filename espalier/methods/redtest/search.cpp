// See search.h.
#include "espalier/methods/redtest/search.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/thread_pool.h"
#include "espalier/base/units.h"
#include "espalier/methods/redtest/search_report.h"

namespace espalier::redtest {
namespace {

namespace fs = std::filesystem;

/// Of one of several cells that train at the same time: its log lines name it, its bars are not
/// shown.
class JobReporter final : public Reporter {
 public:
  JobReporter(Reporter& next, std::string id) : next_(next), id_(std::move(id)) {}
  void log(LogLevel level, std::string_view message) override {
    next_.log(level, format("cell {}: {}", id_, message));
  }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    return silent_reporter().phase(name, total, unit);
  }

 private:
  Reporter& next_;
  std::string id_;
};

struct Finished {
  NatsCell cell;
  CellResult result;
  std::exception_ptr failure;  // of the search, not of the cell
};

class Search {
 public:
  Search(const SearchRequest& request, const SearchHooks& hooks, RunFolder& run, Reporter& reporter,
         const StopToken& stop)
      : request_(request),
        hooks_(hooks),
        run_(run),
        reporter_(reporter),
        stop_(stop),
        folder_(run.folder() / "cells"),
        weights_(run.run_dir() / "weights") {
    if (request_.jobs > 1) pool_ = std::make_unique<ThreadPool>(request_.jobs);
  }

  SearchOutcome run() {
    fs::create_directories(folder_);
    for (const SearchFitness& fitness : request_.fitness) {
      Proposals& proposals = proposals_.emplace_back(request_.rules);
      search(fitness, proposals);
      if (halted_) break;
    }
    update_outcome();
    if (failure_) stop_with_failure();
    if (outcome_.complete) finish();
    publish();
    return std::move(outcome_);
  }

 private:
  void search(const SearchFitness& fitness, Proposals& proposals);
  void take(const NatsCell& cell);
  void start(const NatsCell& cell);
  Finished wait_for_one();
  void accept(Finished finished);
  Finished evaluate(const NatsCell& cell, Reporter& reporter) const;
  bool may_start();
  [[noreturn]] void stop_with_failure();
  fs::path weights_of(const NatsCell& cell) const;
  void drop_weights();
  void update_outcome();
  void publish() { write_search_files(request_, outcome_, run_); }
  void finish();

  const SearchRequest& request_;
  const SearchHooks& hooks_;
  RunFolder& run_;
  Reporter& reporter_;
  const StopToken& stop_;
  fs::path folder_, weights_;
  Stopwatch watch_;

  std::deque<Proposals> proposals_;            // of the searches begun so far
  std::map<std::string, CellResult> results_;  // by id
  bool halted_ = false;                        // no further cell is begun
  std::exception_ptr failure_;                 // thrown when what still trains has ended
  SearchOutcome outcome_;

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Finished> finished_;  // guarded by mutex_
  std::int64_t in_flight_ = 0;
  std::unique_ptr<ThreadPool> pool_;  // last: its threads end before what they use
};

/// One search to its end, or to where it was halted.
void Search::search(const SearchFitness& fitness, Proposals& proposals) {
  const auto phase =
      reporter_.phase(format("searching by {}", fitness.name), request_.rules.evaluations, "cells");
  const auto learn_known = [&] {
    std::int64_t known = 0;
    for (const Proposal& proposal : proposals.history()) {
      const auto found = results_.find(cell_id(proposal.cell));
      if (found == results_.end()) continue;
      proposals.learn(proposal.cell, cell_fitness(found->second, fitness.lambda));
      known += proposal.repeated ? 0 : 1;
    }
    phase->update(known);
  };
  for (;;) {
    while (!halted_ && in_flight_ < request_.jobs && !proposals.finished() && proposals.ready()) {
      const Proposal& proposal = proposals.next();
      if (!proposal.repeated) take(proposal.cell);
      learn_known();
    }
    if (in_flight_ == 0) break;
    accept(wait_for_one());
    learn_known();
  }
  if (!halted_ && proposals.distinct() < request_.rules.evaluations) {
    reporter_.warn(format(
        "evolution went round in cells that it knew: {} distinct ones instead of {}; a larger "
        "--population or --strategy random finds more",
        proposals.distinct(), request_.rules.evaluations));
  }
}

/// Sees that the cell gets a result: from this run, from its file, or by training it.
void Search::take(const NatsCell& cell) {
  const std::string id = cell_id(cell);
  if (results_.contains(id)) return;
  if (const auto known = cell_from_json(folder_ / (id + ".json"), cell, request_.settings)) {
    results_.emplace(id, *known);
    run_.keep();
    return;
  }
  if (may_start())
    start(cell);
  else
    halted_ = true;
}

/// The longest cell so far says how long the next one may take.
bool Search::may_start() {
  if (stop_.stop_requested()) {
    failure_ = std::make_exception_ptr(Interrupted{});
    return false;
  }
  if (request_.time_budget <= 0) return true;
  double expected = 0;
  for (const auto& [id, result] : results_) expected = std::max(expected, result.seconds);
  return watch_.seconds() + expected <= request_.time_budget;
}

void Search::stop_with_failure() {
  publish();
  try {
    std::rethrow_exception(failure_);
  } catch (const Interrupted&) {
    run_.keep();
    throw Interrupted{
        format("{} cells are trained; the same command with --resume goes on", results_.size())};
  }
}

void Search::start(const NatsCell& cell) {
  ++in_flight_;
  if (!pool_) {
    finished_.push_back(evaluate(cell, reporter_));
    return;
  }
  pool_->give([this, cell] {
    JobReporter reporter(reporter_, cell_id(cell));
    Finished result = evaluate(cell, reporter);
    const std::lock_guard lock(mutex_);
    finished_.push_back(std::move(result));
    arrived_.notify_one();
  });
}

Finished Search::wait_for_one() {
  std::unique_lock lock(mutex_);
  arrived_.wait(lock, [this] { return !finished_.empty(); });
  Finished one = std::move(finished_.front());
  finished_.pop_front();
  --in_flight_;
  return one;
}

/// Runs on a thread of the pool when there is one; touches nothing that changes.
Finished Search::evaluate(const NatsCell& cell, Reporter& reporter) const {
  Finished finished;
  finished.cell = cell;
  const Stopwatch watch;
  try {
    try {
      finished.result =
          hooks_.evaluate(cell, request_.keep_weights ? weights_of(cell) : fs::path(), reporter);
    } catch (const Error& error) {
      // A cell that does not train is a finding, anything else is a mistake.
      if (error.kind() != ErrorKind::kInput) throw;
      finished.result.failed = error.what();
      reporter.warn(format("cell {} failed: {}", cell_id(cell), error.what()));
    }
  } catch (...) {
    finished.failure = std::current_exception();
  }
  finished.result.seconds = watch.seconds();
  return finished;
}

void Search::accept(Finished finished) {
  if (finished.failure) {
    halted_ = true;
    if (!failure_) failure_ = finished.failure;
    return;
  }
  const std::string id = cell_id(finished.cell);
  write_file_atomically(folder_ / (id + ".json"),
                        cell_to_json(finished.cell, finished.result, request_.settings));
  run_.keep();  // from here on there is something to resume
  reporter_.info(finished.result.failed.empty()
                     ? format("cell {}: accuracy {:.4f}, MSRS_norm {:.4f}, {} parameters, {}", id,
                              finished.result.accuracy, finished.result.msrs_normalised,
                              format_count(finished.result.parameters),
                              format_seconds(finished.result.seconds))
                     : format("cell {} has no result", id));
  results_.emplace(id, std::move(finished.result));
  ++outcome_.computed;
  update_outcome();
  drop_weights();
  publish();
}

fs::path Search::weights_of(const NatsCell& cell) const { return weights_ / cell_id(cell); }

/// Weights of cells that cannot be chosen any more: the best accuracy only rises, so that a cell
/// below the survivors stays below.
void Search::drop_weights() {
  if (!request_.keep_weights) return;
  const auto& survivors = outcome_.searches.front().choice.survivors;
  for (std::size_t i = 0; i < outcome_.cells.size(); ++i) {
    if (std::ranges::find(survivors, static_cast<std::int64_t>(i)) != survivors.end()) continue;
    std::error_code ignored;
    fs::remove_all(weights_of(outcome_.cells[i].cell), ignored);
  }
}

void Search::update_outcome() {
  outcome_.cells.clear();
  outcome_.searches.clear();
  std::map<std::string, std::int64_t> positions;
  for (std::size_t s = 0; s < proposals_.size(); ++s) {
    SearchHistory& history = outcome_.searches.emplace_back();
    history.fitness = request_.fitness[s];
    history.proposals = proposals_[s].history();
    history.rejected = proposals_[s].rejected();
    history.complete = proposals_[s].finished();
    for (const Proposal& proposal : history.proposals) {
      const std::string id = cell_id(proposal.cell);
      const auto found = results_.find(id);
      if (found == results_.end()) history.complete = false;
      if (found == results_.end() || proposal.repeated) continue;
      const auto [place, fresh] =
          positions.emplace(id, static_cast<std::int64_t>(outcome_.cells.size()));
      if (fresh) outcome_.cells.push_back({proposal.cell, found->second});
      history.cells.push_back(place->second);
    }
    std::vector<SearchedCell> own;
    for (const std::int64_t i : history.cells)
      own.push_back(outcome_.cells[static_cast<std::size_t>(i)]);
    history.choice = choose_cells(own, request_.delta);
    const auto renumber = [&](std::int64_t& i) {
      if (i >= 0) i = history.cells[static_cast<std::size_t>(i)];
    };
    renumber(history.choice.best);
    renumber(history.choice.chosen);
    std::ranges::for_each(history.choice.survivors, renumber);
    std::ranges::for_each(history.choice.pareto, renumber);
  }
  outcome_.complete =
      outcome_.searches.size() == request_.fitness.size() &&
      std::ranges::all_of(outcome_.searches, [](const SearchHistory& h) { return h.complete; });
}

/// The answer's files.
void Search::finish() {
  const std::int64_t chosen = outcome_.searches.front().choice.chosen;
  if (chosen < 0) {
    throw Error(ErrorKind::kInput, "search",
                format("all {} cells failed, the first with: {}", outcome_.cells.size(),
                       outcome_.cells.front().result.failed))
        .hint("use a lower --lr");
  }
  const SearchedCell& answer = outcome_.cells[static_cast<std::size_t>(chosen)];
  write_file_atomically(run_.folder() / "arch.txt", nats_cell_text(answer.cell) + "\n");
  if (request_.keep_weights) {
    if (!fs::exists(weights_of(answer.cell))) {
      reporter_.info(format("cell {} is trained again: an earlier run did not keep its weights",
                            cell_id(answer.cell)));
      hooks_.evaluate(answer.cell, weights_of(answer.cell), reporter_);
    }
    fs::remove_all(run_.folder() / "model");
    fs::rename(weights_of(answer.cell), run_.folder() / "model");
  }
  fs::remove_all(weights_);
}

}  // namespace

void check_search(const SearchRequest& request) {
  check_rules(request.rules);
  const std::int64_t lag = request.rules.lag;
  if (request.rules.strategy == SearchStrategy::kEvolution && request.jobs > lag) {
    throw Error(ErrorKind::kUsage, "--jobs",
                format("is {}, but with --lag {} no more than {} cells are trained at a time",
                       request.jobs, lag, lag))
        .hint(format("--jobs {}, or --lag {}, which is another search", lag, request.jobs));
  }
}

SearchOutcome run_search(const SearchRequest& request, const SearchHooks& hooks, RunFolder& run,
                         Reporter& reporter, const StopToken& stop) {
  ESPALIER_ASSERT(!request.fitness.empty() && hooks.evaluate);
  check_search(request);
  return Search(request, hooks, run, reporter, stop).run();
}

}  // namespace espalier::redtest
