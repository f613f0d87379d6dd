// The files, the JSON document and the table of `espalier redundancy` on a CNN.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "espalier/methods/redtest/redundancy.h"
#include "espalier/similarity/segmentation.h"

namespace espalier::redtest {

struct RedundancyDocument {
  std::string model;  // as the user named it
  std::string arch;
  std::vector<std::string> names;  // of the hidden set
  Redundancy redundancy;
  RedundancyOptions options;
  Segmentation segments;              // of the matrix, drawn in the report
  std::vector<std::int64_t> removed;  // marked in the report; empty when nothing was removed
  std::string data, data_sha256;
  std::int64_t batches = 0, batch_size = 0;
  std::uint64_t seed = 0;
  std::string command_line;
};

/// Schema espalier.redundancy/1; no NaN: null where there is no number.
std::string redundancy_json(const RedundancyDocument& document);

/// Table for stdout: a row per layer, then MSRS.
std::string redundancy_table(const RedundancyDocument& document);

/// The matrix with its segments, and bars per layer, as one HTML file.
void write_report(const RedundancyDocument& document, const std::filesystem::path& path);

/// Writes redundancy.json, cka.csv and run/report.html into `folder`.
void write_redundancy(const RedundancyDocument& document, const std::filesystem::path& folder);

}  // namespace espalier::redtest
