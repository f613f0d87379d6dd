// `espalier search`: cells of NATS-Bench's topology space, trained briefly, measured, and chosen by
// accuracy and redundancy (spec 2.9). How a cell is trained is the caller's; what is tried, in
// which order and what is chosen is decided here. Every cell leaves a small file, so that a stopped
// search goes on with the next one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/methods/redtest/evolution.h"
#include "espalier/methods/redtest/search_cells.h"
#include "espalier/run/run_folder.h"

namespace espalier::redtest {

/// One search of a run: what its evolution climbs. Lambda 0 is plain architecture search.
struct SearchFitness {
  std::string name = "redundancy";
  double lambda = 0.1;  // accuracy that MSRS_norm of 1 is worth
};

struct SearchRequest {
  SearchRules rules;
  std::vector<SearchFitness> fitness{SearchFitness{}};  // the first is what was asked for
  double delta = 1.0;                                   // percentage points; see choose_cells
  std::int64_t jobs = 1;      // cells trained at a time; at most rules.lag
  double time_budget = 0;     // seconds; no cell is begun that is expected to end later; 0: none
  bool keep_weights = false;  // those of the chosen cell, under OUT/model
  /// What a cell's result depends on besides the cell, as text: data, training, seed, device type.
  std::string settings;
};

struct SearchHooks {
  /// Trains and measures one cell; weights go into `weights` (made by the callee) unless it is
  /// empty. Must be a pure function of cell and settings. Called from up to request.jobs threads at
  /// a time. Error(kInput), a loss that is not finite say, is a result: the cell failed.
  /// Interrupted ends the search.
  std::function<CellResult(const NatsCell& cell, const std::filesystem::path& weights,
                           Reporter& reporter)>
      evaluate;
};

/// What one of the searches found.
struct SearchHistory {
  SearchFitness fitness;
  std::vector<Proposal> proposals;    // in order, those without a result yet included
  std::vector<std::string> rejected;  // ids of drawn cells without a path, never trained
  std::vector<std::int64_t> cells;    // its distinct cells with results, as positions in `cells`
  SearchChoice choice;                // among them; positions in SearchOutcome::cells
  bool complete = false;
};

struct SearchOutcome {
  std::vector<SearchedCell> cells;  // of all searches, in the order of their first proposal
  std::vector<SearchHistory> searches;
  std::int64_t computed = 0;  // cells trained by this process
  bool complete = false;
};

/// Throws Error(kUsage) from check_rules, and for more jobs than evolution's lag.
void check_search(const SearchRequest& request);

/// Runs the searches one after the other, from the same first population; a cell that two of them
/// propose is trained once. Writes into `run`: cells/ID.json, search.json and run/report.html after
/// every cell; arch.txt (the chosen cell's string) and, with keep_weights, model/ at the end.
///
/// The outcome is a function of rules, fitness, delta and the cells' results: jobs, stops and
/// resumes do not change it. After a stop request or the time budget the run folder is kept; a stop
/// request throws Interrupted, the budget returns with complete = false.
/// Throws what check_search throws, and Error(kInput) when every cell failed.
SearchOutcome run_search(const SearchRequest& request, const SearchHooks& hooks, RunFolder& run,
                         Reporter& reporter, const StopToken& stop);

}  // namespace espalier::redtest
