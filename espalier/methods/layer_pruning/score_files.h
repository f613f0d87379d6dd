// Scores and orders as files: scores.json (spec 3.6), written and read, and block_order.csv, the
// one line that other pruning programs exchange.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/methods/layer_pruning/scores.h"

namespace espalier::layer_pruning {

/// The metric under which an order read from a file is kept: its numbers are places in the order.
constexpr const char* kOrderMetric = "order";

struct Calibration {
  std::string file, sha256;
  std::int64_t samples = 0, seq_len = 0;
  std::uint64_t seed = 0;
};

/// NaN becomes null.
std::string scores_to_json(const LayerScores& scores, const std::string& model,
                           const Calibration& calibration);
/// Error(kInput) naming the key for lists of another length than n_layers, texts among numbers,
/// orders that are none. Unknown metrics are kept: they may be of a later version.
LayerScores scores_from_json(std::string_view text, std::string_view source);

/// {"k", "starts", "cost", "costs", "keep"}: the segments, and how many layers of each stay.
std::string segments_to_json(const SegmentPlan& plan);

/// "26,25,24\n": least important first.
std::string order_to_csv(const std::vector<std::int64_t>& order);
/// One order of distinct layers below `num_layers`, separated by commas, blanks or line ends, in
/// [brackets] or not. It may be shorter than the model: layers that are not in it never go. Throws
/// Error(kInput) with the place of the first entry that is no layer or comes twice.
std::vector<std::int64_t> order_from_csv(std::string_view text, std::int64_t num_layers,
                                         std::string_view source);

/// Reads either form, told apart by the first character. An order becomes the metric `order`, with
/// infinity for layers that are not in it. Error(kInput) when the file is of another depth.
LayerScores read_scores(const std::filesystem::path& file, std::int64_t num_layers);

}  // namespace espalier::layer_pruning
