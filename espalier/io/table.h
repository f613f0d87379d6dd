// Rows of data files, whatever the file is: JSON Lines (.gz and .zst too), a JSON array, Parquet.
// What the rows mean is the caller's business.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace espalier {

struct TableField;

/// One value of a row. Nesting is bounded by the readers (200 levels).
struct TableValue {
  using List = std::vector<TableValue>;
  using Fields = std::vector<TableField>;
  std::variant<std::monostate, bool, std::int64_t, double, std::string, List, Fields> data;

  bool is_null() const { return std::holds_alternative<std::monostate>(data); }
  /// Null pointers where the value is something else.
  const std::string* text() const { return std::get_if<std::string>(&data); }
  const List* list() const { return std::get_if<List>(&data); }
  const Fields* fields() const { return std::get_if<Fields>(&data); }
  /// The field of this name of an object; null when there is none.
  const TableValue* find(std::string_view name) const;
  /// "null", "a boolean", "a number", "text", "a list", "an object": for messages.
  std::string_view type_name() const;
};

struct TableField {
  std::string name;
  TableValue value;
};

/// Reads a file row by row, in order; memory is bounded by one row (Parquet: one batch of rows).
class TableReader {
 public:
  virtual ~TableReader() = default;
  /// Reads the next row, an object. false at the end of the file. Throws Error(kInput) with file
  /// and line for what is not a row, naming what was found.
  virtual bool next(TableValue& row) = 0;
  /// Where the last row stands: "data.jsonl:17", "data.parquet: row 17" (both count from 1).
  virtual std::string where() const = 0;
  /// Bytes of the file used so far and in all, for progress.
  virtual std::int64_t bytes_read() const = 0;
  virtual std::int64_t bytes_total() const = 0;
};

/// True for names that open_table reads: .jsonl, .ndjson, .json, each also with .gz or .zst behind
/// it, and .parquet. Says nothing about the contents.
bool is_table_file(const std::filesystem::path& file);

/// Opens a table. Compression is recognised by the file's first bytes, and so is an array among
/// JSON. Throws Error(kInput) when the file is missing, a folder or empty; Error(kEnvironment) for
/// Parquet in a build without Arrow, naming how to get it.
std::unique_ptr<TableReader> open_table(const std::filesystem::path& file);

}  // namespace espalier
