// Separated values (CSV after RFC 4180, TSV) as a stream of rows. Which columns there must be and
// what they mean is the caller's business.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "espalier/io/table.h"

namespace espalier {

struct CsvOptions {
  /// Names of the columns of a file without a header line; empty: the first line names them.
  std::vector<std::string> columns = {};
  char separator = ',';
  /// "a ""quoted"" field", which may hold separators and line ends. Off: quotes are letters and
  /// every line is a row.
  bool quotes = true;
  /// Longest row, as kMaxRowBytes of jsonl.h.
  std::size_t max_row_bytes = std::size_t{64} << 20;
};

/// Rows as objects whose values are all text. Plain or compressed; a byte order mark is skipped,
/// and so are blank lines. Errors name file:line. Throws Error(kInput) for a missing or empty file,
/// a row with more or fewer fields than columns, a quote that is never closed, and rows that are
/// too long.
std::unique_ptr<TableReader> open_csv(const std::filesystem::path& file,
                                      const CsvOptions& options = {});

}  // namespace espalier
