// The JSON document, the table and the report of a search.
#pragma once

#include <string>

#include "espalier/methods/redtest/search.h"

namespace espalier::redtest {

/// Schema espalier.search/1. `cells` are those of all searches; `fitness`, `lambda`, `evaluations`,
/// `rejected`, `pareto` and `chosen` are of the first one, the others have theirs in `searches`.
std::string search_json(const SearchRequest& request, const SearchOutcome& outcome);

/// Table for stdout: the survivors and the front of the first search, then a line per search.
std::string search_table(const SearchOutcome& outcome);

/// Writes search.json and run/report.html into the run's folder.
void write_search_files(const SearchRequest& request, const SearchOutcome& outcome,
                        const RunFolder& run);

}  // namespace espalier::redtest
