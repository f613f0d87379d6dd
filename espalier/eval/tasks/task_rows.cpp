// Field access: one message for each way in which a field can be wrong.
#include "espalier/eval/tasks/task_rows.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier {
namespace {

std::string joined(std::span<const std::string> labels) {
  std::string all;
  for (const std::string& label : labels) all += (all.empty() ? "" : ", ") + label;
  return all;
}

bool is_csv(std::filesystem::path file) {
  file = file.filename();
  if (file.extension() == ".gz" || file.extension() == ".zst") file = file.stem();
  return file.extension() == ".csv" || file.extension() == ".tsv";
}

}  // namespace

void TaskRow::fail(std::string_view field, std::string_view what) const {
  throw Error(ErrorKind::kInput, where_, format("field '{}' {}", field, what));
}

const TableValue& TaskRow::at(std::string_view field) const {
  const TableValue* found = value_.find(field);
  if (found == nullptr) fail(field, "is missing");
  return *found;
}

const std::string& TaskRow::text(std::string_view field) const {
  const TableValue& found = at(field);
  if (found.text() == nullptr) fail(field, format("is {}, expected text", found.type_name()));
  return *found.text();
}

std::vector<std::string> TaskRow::texts(std::string_view field) const {
  const TableValue& found = at(field);
  if (found.list() == nullptr)
    fail(field, format("is {}, expected a list of texts", found.type_name()));
  std::vector<std::string> all;
  for (const TableValue& item : *found.list()) {
    if (item.text() == nullptr)
      fail(field, format("holds {} as item {}, expected text", item.type_name(), all.size()));
    all.push_back(*item.text());
  }
  return all;
}

std::int64_t TaskRow::integer(std::string_view field) const {
  const TableValue& found = at(field);
  if (const auto* number = std::get_if<std::int64_t>(&found.data)) return *number;
  if (const std::string* digits = found.text()) {
    std::int64_t number = 0;
    const auto [end, problem] =
        std::from_chars(digits->data(), digits->data() + digits->size(), number);
    if (problem == std::errc{} && end == digits->data() + digits->size()) return number;
    fail(field, format("is \"{}\", expected a whole number", digits->substr(0, 40)));
  }
  fail(field, format("is {}, expected a whole number", found.type_name()));
}

std::int64_t TaskRow::index(std::string_view field, std::size_t count) const {
  const std::int64_t value = integer(field);
  if (value < 0 || value >= static_cast<std::int64_t>(count))
    fail(field,
         format("is {}, but the choices are 0 to {}", value, static_cast<std::int64_t>(count) - 1));
  return value;
}

std::int64_t TaskRow::index_of(std::string_view field, std::span<const std::string> labels) const {
  std::string_view wanted = text(field);
  while (wanted.starts_with(' ')) wanted.remove_prefix(1);
  const auto it = std::find(labels.begin(), labels.end(), wanted);
  if (it == labels.end())
    fail(field, format("is \"{}\", but the choices are {}", wanted.substr(0, 40), joined(labels)));
  return it - labels.begin();
}

void for_each_row(std::span<const std::filesystem::path> files, std::int64_t limit,
                  const std::function<void(const TaskRow&)>& row, const CsvOptions& csv) {
  std::int64_t count = 0;
  for (const std::filesystem::path& file : files) {
    const std::unique_ptr<TableReader> reader =
        is_csv(file) ? open_csv(file, csv) : open_table(file);
    TableValue value;
    while ((limit <= 0 || count < limit) && reader->next(value)) {
      row(TaskRow(value, reader->where()));
      ++count;
    }
  }
  if (count == 0)
    throw Error(ErrorKind::kInput, files.empty() ? "task" : files.front().string(),
                "holds no rows");
}

TableField table_field(std::string name, std::string text) {
  return {std::move(name), {std::move(text)}};
}

TableField table_field(std::string name, std::int64_t number) {
  return {std::move(name), {number}};
}

TableField table_field(std::string name, const std::vector<std::string>& texts) {
  TableValue::List list;
  for (const std::string& text : texts) list.push_back({text});
  return {std::move(name), {std::move(list)}};
}

TableValue with_fields(const TableValue& object, std::vector<TableField> more) {
  TableValue::Fields all = object.fields() != nullptr ? *object.fields() : TableValue::Fields{};
  for (TableField& field : more) all.push_back(std::move(field));
  return {std::move(all)};
}

}  // namespace espalier
