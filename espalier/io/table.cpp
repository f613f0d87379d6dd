// Which reader a file gets, and the small questions one asks a value.
#include "espalier/io/table.h"

#include <algorithm>
#include <array>

#include "espalier/base/error.h"
#include "espalier/io/jsonl.h"
#include "espalier/io/mapped_file.h"
#include "espalier/io/parquet.h"

namespace espalier {

const TableValue* TableValue::find(std::string_view name) const {
  const Fields* all = fields();
  if (all == nullptr) return nullptr;
  const auto it =
      std::find_if(all->begin(), all->end(), [&](const auto& field) { return field.name == name; });
  return it == all->end() ? nullptr : &it->value;
}

std::string_view TableValue::type_name() const {
  constexpr std::array<std::string_view, 7> kNames{"null", "a boolean", "a number", "a number",
                                                   "text", "a list",    "an object"};
  return kNames[data.index()];
}

bool is_table_file(const std::filesystem::path& file) {
  std::filesystem::path name = file.filename();
  if (name.extension() == ".parquet") return true;
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  const std::filesystem::path ending = name.extension();
  return ending == ".jsonl" || ending == ".ndjson" || ending == ".json";
}

std::unique_ptr<TableReader> open_table(const std::filesystem::path& file) {
  constexpr std::string_view kParquet = "PAR1";
  {
    const auto mapped = MappedFile::open(file);  // missing files and folders fail here, once
    if (mapped->size() == 0)
      throw Error(ErrorKind::kInput, file.string(), "is empty, expected rows of data");
    const auto bytes = mapped->bytes().first(std::min<std::size_t>(mapped->size(), 4));
    const std::string_view head(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (file.extension() == ".parquet" || head == kParquet) return open_parquet(file);
  }
  return open_jsonl(file);
}

}  // namespace espalier
