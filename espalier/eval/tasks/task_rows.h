// Rows of a task's files, whatever their format is, and fields of a row with errors that name
// file, line and field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/io/csv.h"
#include "espalier/io/table.h"

namespace espalier {

class TaskRow {
 public:
  TaskRow(const TableValue& value, std::string where) : value_(value), where_(std::move(where)) {}

  const TableValue& value() const { return value_; }
  /// "piqa_valid.jsonl:17".
  const std::string& where() const { return where_; }
  const TableValue* find(std::string_view field) const { return value_.find(field); }

  /// These throw Error(kInput) naming the place and the field when it is missing or of another
  /// type.
  const TableValue& at(std::string_view field) const;
  const std::string& text(std::string_view field) const;
  std::vector<std::string> texts(std::string_view field) const;
  /// A whole number, or text that is one ("0", "1"): publishers write labels both ways.
  std::int64_t integer(std::string_view field) const;
  /// integer() that must lie in [0, count).
  std::int64_t index(std::string_view field, std::size_t count) const;
  /// Place among `labels` of the text in `field`.
  std::int64_t index_of(std::string_view field, std::span<const std::string> labels) const;
  /// The row of an object inside this one, for its errors: field "question.stem".
  [[noreturn]] void fail(std::string_view field, std::string_view what) const;

 private:
  const TableValue& value_;
  std::string where_;
};

/// Calls `row` for the rows of all files, in order, at most `limit` (0: all). Files ending in .csv
/// are read with `csv`, others as tables. Throws Error(kInput) when there is no row at all.
void for_each_row(std::span<const std::filesystem::path> files, std::int64_t limit,
                  const std::function<void(const TaskRow&)>& row, const CsvOptions& csv = {});

/// For documents that are built rather than read.
TableField table_field(std::string name, std::string text);
TableField table_field(std::string name, std::int64_t number);
TableField table_field(std::string name, const std::vector<std::string>& texts);
/// A copy of an object with more fields at its end.
TableValue with_fields(const TableValue& object, std::vector<TableField> more);

}  // namespace espalier
