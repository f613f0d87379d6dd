// The one file that sees Arrow. Without ESPALIER_ARROW it only says how to get it.
#include "espalier/io/parquet.h"

#include "espalier/base/error.h"
#include "espalier/base/format.h"

#ifdef ESPALIER_ARROW
#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/util/config.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#endif

namespace espalier {

#ifndef ESPALIER_ARROW

std::string arrow_version() { return ""; }

std::unique_ptr<TableReader> open_parquet(const std::filesystem::path& file) {
  throw Error(ErrorKind::kEnvironment, file.string(),
              "is a Parquet file, and this espalier was built without Arrow")
      .hint("build with make ARROW=1, or convert the file to JSON Lines");
}

#else

namespace {

constexpr std::int64_t kRowsPerBatch = 512;
constexpr int kMaxNesting = 32;

[[noreturn]] void fail(const std::string& name, const arrow::Status& status) {
  const bool memory = status.IsOutOfMemory();
  throw Error(memory ? ErrorKind::kResource : ErrorKind::kInput, name,
              format("cannot be read as Parquet: {}", status.message()));
}

template <class T>
T take(const std::string& name, arrow::Result<T> result) {
  if (!result.ok()) fail(name, result.status());
  return std::move(result).ValueOrDie();
}

bool is_readable(const arrow::DataType& type, int nesting = 0) {
  if (nesting > kMaxNesting) return false;
  using Id = arrow::Type;
  switch (type.id()) {
    case Id::NA:
    case Id::BOOL:
    case Id::INT8:
    case Id::INT16:
    case Id::INT32:
    case Id::INT64:
    case Id::UINT8:
    case Id::UINT16:
    case Id::UINT32:
    case Id::UINT64:
    case Id::FLOAT:
    case Id::DOUBLE:
    case Id::STRING:
    case Id::LARGE_STRING:
      return true;
    case Id::DICTIONARY:
      return is_readable(*static_cast<const arrow::DictionaryType&>(type).value_type(),
                         nesting + 1);
    case Id::LIST:
    case Id::LARGE_LIST:
    case Id::STRUCT:
      for (const auto& field : type.fields())
        if (!is_readable(*field->type(), nesting + 1)) return false;
      return true;
    default:
      return false;
  }
}

TableValue to_value(const arrow::Array& array, std::int64_t i);

/// Values of a list: those of `values` in [begin, end).
TableValue to_list(const arrow::Array& values, std::int64_t begin, std::int64_t end) {
  TableValue::List list;
  list.reserve(static_cast<std::size_t>(end - begin));
  for (std::int64_t i = begin; i < end; ++i) list.push_back(to_value(values, i));
  return {std::move(list)};
}

template <class ArrayType>
const ArrayType& as(const arrow::Array& array) {
  return static_cast<const ArrayType&>(array);
}

TableValue to_value(const arrow::Array& array, std::int64_t i) {
  using Id = arrow::Type;
  if (array.IsNull(i)) return {};
  switch (array.type_id()) {
    case Id::BOOL:
      return {as<arrow::BooleanArray>(array).Value(i)};
    case Id::INT8:
      return {std::int64_t{as<arrow::Int8Array>(array).Value(i)}};
    case Id::INT16:
      return {std::int64_t{as<arrow::Int16Array>(array).Value(i)}};
    case Id::INT32:
      return {std::int64_t{as<arrow::Int32Array>(array).Value(i)}};
    case Id::INT64:
      return {as<arrow::Int64Array>(array).Value(i)};
    case Id::UINT8:
      return {std::int64_t{as<arrow::UInt8Array>(array).Value(i)}};
    case Id::UINT16:
      return {std::int64_t{as<arrow::UInt16Array>(array).Value(i)}};
    case Id::UINT32:
      return {std::int64_t{as<arrow::UInt32Array>(array).Value(i)}};
    case Id::UINT64:
      return {static_cast<double>(as<arrow::UInt64Array>(array).Value(i))};
    case Id::FLOAT:
      return {double{as<arrow::FloatArray>(array).Value(i)}};
    case Id::DOUBLE:
      return {as<arrow::DoubleArray>(array).Value(i)};
    case Id::STRING:
      return {as<arrow::StringArray>(array).GetString(i)};
    case Id::LARGE_STRING:
      return {as<arrow::LargeStringArray>(array).GetString(i)};
    case Id::DICTIONARY: {
      const auto& coded = as<arrow::DictionaryArray>(array);
      return to_value(*coded.dictionary(), coded.GetValueIndex(i));
    }
    case Id::LIST: {
      const auto& list = as<arrow::ListArray>(array);
      return to_list(*list.values(), list.value_offset(i), list.value_offset(i + 1));
    }
    case Id::LARGE_LIST: {
      const auto& list = as<arrow::LargeListArray>(array);
      return to_list(*list.values(), list.value_offset(i), list.value_offset(i + 1));
    }
    case Id::STRUCT: {
      const auto& record = as<arrow::StructArray>(array);
      TableValue::Fields fields;
      for (int f = 0; f < record.num_fields(); ++f)
        fields.push_back({record.struct_type()->field(f)->name(), to_value(*record.field(f), i)});
      return {std::move(fields)};
    }
    default:
      return {};
  }
}

class ParquetReader final : public TableReader {
 public:
  explicit ParquetReader(const std::filesystem::path& file) : name_(file.string()) {
    try {
      auto input = take(name_, arrow::io::MemoryMappedFile::Open(name_, arrow::io::FileMode::READ));
      bytes_ = take(name_, input->GetSize());
      file_ = take(name_, parquet::arrow::OpenFile(std::move(input), arrow::default_memory_pool()));
      rows_ = file_->parquet_reader()->metadata()->num_rows();
      std::shared_ptr<arrow::Schema> schema;
      if (const auto status = file_->GetSchema(&schema); !status.ok()) fail(name_, status);
      ProblemList problems(ErrorKind::kUnsupported, name_);
      for (const auto& field : schema->fields()) {
        if (is_readable(*field->type())) continue;
        problems.add(format("column '{}' has the type {}, which we do not read", field->name(),
                            field->type()->ToString()));
      }
      problems.throw_if_any("leave the column out when the file is written");
      file_->set_batch_size(kRowsPerBatch);
      file_->set_use_threads(false);
      batches_ = take(name_, file_->GetRecordBatchReader());
    } catch (const parquet::ParquetException& error) {
      fail(name_, arrow::Status::Invalid(error.what()));
    }
  }

  bool next(TableValue& row) override {
    while (!batch_ || at_ == batch_->num_rows()) {
      try {
        if (const auto status = batches_->ReadNext(&batch_); !status.ok()) fail(name_, status);
      } catch (const parquet::ParquetException& error) {
        fail(name_, arrow::Status::Invalid(error.what()));
      }
      if (!batch_) return false;
      // Offsets and indices of a damaged file must not lead outside their buffers.
      if (const auto status = batch_->ValidateFull(); !status.ok()) fail(name_, status);
      at_ = 0;
    }
    TableValue::Fields fields;
    fields.reserve(static_cast<std::size_t>(batch_->num_columns()));
    for (int c = 0; c < batch_->num_columns(); ++c)
      fields.push_back({batch_->column_name(c), to_value(*batch_->column(c), at_)});
    row.data = std::move(fields);
    ++at_;
    ++done_;
    return true;
  }

  std::string where() const override { return format("{}: row {}", name_, done_); }
  std::int64_t bytes_read() const override {
    return rows_ > 0
               ? static_cast<std::int64_t>(static_cast<double>(bytes_) *
                                           static_cast<double>(done_) / static_cast<double>(rows_))
               : bytes_;
  }
  std::int64_t bytes_total() const override { return bytes_; }

 private:
  std::string name_;
  std::unique_ptr<parquet::arrow::FileReader> file_;
  std::unique_ptr<arrow::RecordBatchReader> batches_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  std::int64_t at_ = 0, done_ = 0, rows_ = 0, bytes_ = 0;
};

}  // namespace

std::string arrow_version() { return ARROW_VERSION_STRING; }

std::unique_ptr<TableReader> open_parquet(const std::filesystem::path& file) {
  return std::make_unique<ParquetReader>(file);
}

#endif

}  // namespace espalier
