// What a search knows of a cell: its result, the small JSON file that holds it, and which of many
// cells are the answer (spec 2.9).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "espalier/models/cnn/nats_cell.h"

namespace espalier::redtest {

/// Of a short training. Parameters are those of the whole network.
struct CellResult {
  double accuracy = 0, accuracy_stderr = 0, loss = 0;  // on images that did not train
  std::int64_t images = 0;                             // how many those are
  double msrs = 0, msrs_normalised = 0;
  std::int64_t degenerate = 0;          // layers of constant features, which count 0 in MSRS
  std::optional<double> test_accuracy;  // reported, never chosen by
  std::int64_t parameters = 0;
  double seconds = 0;  // of training and measuring
  std::string failed;  // why there are no numbers (a loss that became NaN); "" normally
};

struct SearchedCell {
  NatsCell cell;
  CellResult result;
};

/// accuracy - lambda * MSRS_norm; -infinity for a failed cell.
double cell_fitness(const CellResult& result, double lambda);

/// `settings`: everything that a result depends on but the cell. Numbers come back bit by bit.
std::string cell_to_json(const NatsCell& cell, const CellResult& result,
                         const std::string& settings);
/// Nothing when there is no file, or it is of another cell or other settings: a changed command
/// never mixes numbers. Throws Error(kInput) for a file that is no JSON.
std::optional<CellResult> cell_from_json(const std::filesystem::path& file, const NatsCell& cell,
                                         const std::string& settings);

/// Positions in a list of cells; failed ones take no part. -1 and empty when none is left.
struct SearchChoice {
  std::int64_t best = -1;  // highest accuracy; ties: smaller MSRS_norm, fewer parameters, string
  std::vector<std::int64_t> survivors;  // accuracy at most `delta` below the best's
  std::int64_t chosen = -1;  // of them smallest MSRS_norm; ties: fewer parameters, accuracy, string
  /// No other cell is at least as good in accuracy, MSRS_norm and parameters and better in one.
  /// By falling accuracy; equals stay together.
  std::vector<std::int64_t> pareto;
};

/// `delta`: percentage points of accuracy.
SearchChoice choose_cells(const std::vector<SearchedCell>& cells, double delta);

}  // namespace espalier::redtest
