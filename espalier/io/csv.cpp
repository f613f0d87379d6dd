// A state machine over bytes: a row is collected field by field, so that memory holds one row.
#include "espalier/io/csv.h"

#include <array>
#include <utility>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/io/text_source_internal.h"

namespace espalier {
namespace {

constexpr int kEnd = -1;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

class CsvReader final : public TableReader {
 public:
  CsvReader(const std::filesystem::path& file, const CsvOptions& options)
      : name_(file.string()),
        separator_(options.separator),
        quotes_(options.quotes),
        max_row_bytes_(options.max_row_bytes),
        columns_(options.columns),
        source_(TextSource::open(file)) {
    skip_byte_order_mark();
    if (peek() == kEnd) throw Error(ErrorKind::kInput, name_, "is empty, expected rows of data");
    if (columns_.empty() && !read_fields(columns_))
      throw Error(ErrorKind::kInput, name_, "is blank, expected a line that names the columns");
  }

  bool next(TableValue& row) override {
    std::vector<std::string> fields;
    if (!read_fields(fields)) return false;
    if (fields.size() != columns_.size()) {
      throw Error(ErrorKind::kInput, where(),
                  format("the row has {} fields, expected {}", fields.size(), columns_.size()))
          .hint("is a quote or a separator missing?");
    }
    TableValue::Fields values(fields.size());
    for (std::size_t i = 0; i < fields.size(); ++i) {
      values[i].name = columns_[i];
      values[i].value.data = std::move(fields[i]);
    }
    row.data = std::move(values);
    return true;
  }

  std::string where() const override { return format("{}:{}", name_, row_line_); }
  std::int64_t bytes_read() const override { return source_->position(); }
  std::int64_t bytes_total() const override { return source_->size(); }

 private:
  int peek() {
    if (begin_ == end_) {
      begin_ = 0;
      end_ = source_->read(buffer_);
      if (end_ == 0) return kEnd;
    }
    return static_cast<unsigned char>(buffer_[begin_]);
  }
  int take() {
    const int c = peek();
    if (c == kEnd) return c;
    ++begin_;
    line_ += c == '\n';
    return c;
  }

  void skip_byte_order_mark() {
    if (peek() != static_cast<unsigned char>(kByteOrderMark[0])) return;
    for (const char expected : kByteOrderMark) {
      if (static_cast<char>(take()) != expected)
        throw Error(ErrorKind::kInput, name_, "begins with bytes that are no text");
    }
  }

  [[noreturn]] void fail_long_row() const {
    throw Error(ErrorKind::kInput, where(),
                format("the row is longer than {}",
                       to_string(Bytes{static_cast<std::int64_t>(max_row_bytes_)})))
        .hint("is a quote never closed?");
  }

  void append(std::string& field, int c) {
    if (++row_bytes_ > max_row_bytes_) fail_long_row();
    field += static_cast<char>(c);
  }

  /// The rest of a field after its opening quote.
  void read_quoted(std::string& field) {
    for (;;) {
      const int c = take();
      if (c == kEnd) throw Error(ErrorKind::kInput, where(), "a quote is opened and never closed");
      if (c == '"') {
        if (peek() != '"') return;
        take();
      }
      append(field, c);
    }
  }

  /// The next line that is not blank; false at the end.
  bool read_fields(std::vector<std::string>& fields) {
    while (peek() == '\n' || peek() == '\r') take();
    if (peek() == kEnd) return false;
    row_line_ = line_;
    row_bytes_ = 0;
    fields.assign(1, {});
    for (bool at_start = true;;) {
      const int c = take();
      if (c == kEnd || c == '\n') return true;
      if (c == '\r' && (peek() == '\n' || peek() == kEnd)) continue;
      if (c == static_cast<unsigned char>(separator_)) {
        fields.emplace_back();
        if (++row_bytes_ > max_row_bytes_) fail_long_row();
        at_start = true;
        continue;
      }
      if (c == '"' && quotes_ && at_start) {
        read_quoted(fields.back());
      } else {
        append(fields.back(), c);
      }
      at_start = false;
    }
  }

  std::string name_;
  char separator_;
  bool quotes_;
  std::size_t max_row_bytes_;
  std::vector<std::string> columns_;
  std::unique_ptr<TextSource> source_;
  std::array<char, 1 << 16> buffer_{};
  std::size_t begin_ = 0, end_ = 0, row_bytes_ = 0;
  std::int64_t line_ = 1, row_line_ = 1;
};

}  // namespace

std::unique_ptr<TableReader> open_csv(const std::filesystem::path& file,
                                      const CsvOptions& options) {
  return std::make_unique<CsvReader>(file, options);
}

}  // namespace espalier
