// JSON rows from a stream of bytes: a line or an array element is collected, then parsed alone, so
// that memory holds one row however large the file is.
#include "espalier/io/jsonl.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <string>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/units.h"
#include "espalier/io/text_source_internal.h"

namespace espalier {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr int kEnd = -1;

bool is_blank(int c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

TableValue to_value(const Json& json) {
  TableValue value;
  switch (json.type()) {
    case Json::value_t::boolean:
      value.data = json.get<bool>();
      break;
    case Json::value_t::number_integer:
      value.data = json.get<std::int64_t>();
      break;
    case Json::value_t::number_unsigned: {
      const auto number = json.get<std::uint64_t>();
      if (number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        value.data = static_cast<std::int64_t>(number);
      } else {
        value.data = static_cast<double>(number);
      }
      break;
    }
    case Json::value_t::number_float:
      value.data = json.get<double>();
      break;
    case Json::value_t::string:
      value.data = json.get<std::string>();
      break;
    case Json::value_t::array: {
      TableValue::List list;
      list.reserve(json.size());
      for (const Json& item : json) list.push_back(to_value(item));
      value.data = std::move(list);
      break;
    }
    case Json::value_t::object: {
      TableValue::Fields fields;
      fields.reserve(json.size());
      for (const auto& [name, item] : json.items()) fields.push_back({name, to_value(item)});
      value.data = std::move(fields);
      break;
    }
    default:
      break;
  }
  return value;
}

class JsonReader final : public TableReader {
 public:
  JsonReader(const std::filesystem::path& file, std::size_t max_row_bytes)
      : name_(file.string()), max_row_bytes_(max_row_bytes), source_(TextSource::open(file)) {
    for (;;) {
      const int c = peek();
      if (c == kEnd) throw Error(ErrorKind::kInput, name_, "is empty, expected rows of data");
      if (static_cast<char>(c) == kByteOrderMark[0] && line_ == 1) {
        for (const char expected : kByteOrderMark) {
          if (static_cast<char>(take()) != expected)
            fail_here("begins with bytes that are neither JSON nor a byte order mark");
        }
      } else if (is_blank(c)) {
        take();
      } else {
        break;
      }
    }
    is_array_ = peek() == '[';
    if (is_array_) take();
  }

  bool next(TableValue& row) override {
    row_.clear();
    if (is_array_ ? !collect_element() : !collect_line()) return false;
    row = to_value(parse());
    if (row.fields() == nullptr) {
      throw Error(ErrorKind::kInput, where(),
                  format("the row is {}, expected an object such as {{\"text\": \"...\"}}",
                         row.type_name()));
    }
    return true;
  }

  std::string where() const override { return format("{}:{}", name_, row_line_); }
  std::int64_t bytes_read() const override { return source_->position(); }
  std::int64_t bytes_total() const override { return source_->size(); }

 private:
  [[noreturn]] void fail_here(std::string_view what) const {
    throw Error(ErrorKind::kInput, format("{}:{}", name_, line_), what);
  }

  bool refill() {
    begin_ = 0;
    end_ = at_end_ ? 0 : source_->read(buffer_);
    at_end_ = end_ == 0;
    return !at_end_;
  }
  int peek() {
    if (begin_ == end_ && !refill()) return kEnd;
    return static_cast<unsigned char>(buffer_[begin_]);
  }
  int take() {
    const int c = peek();
    if (c == kEnd) return c;
    ++begin_;
    line_ += c == '\n';
    return c;
  }

  void append(std::string_view bytes) {
    if (row_.size() + bytes.size() > max_row_bytes_) {
      throw Error(ErrorKind::kInput, where(),
                  format("the row is longer than {}",
                         to_string(Bytes{static_cast<std::int64_t>(max_row_bytes_)})))
          .hint("JSON Lines holds one object per line; is a line end or a bracket missing?");
    }
    row_ += bytes;
  }

  /// The next line that is not blank.
  bool collect_line() {
    while (begin_ < end_ || refill()) {
      if (row_.empty()) row_line_ = line_;
      const char* from = buffer_.data() + begin_;
      const auto* newline = static_cast<const char*>(std::memchr(from, '\n', end_ - begin_));
      const std::size_t length =
          newline != nullptr ? static_cast<std::size_t>(newline - from) : end_ - begin_;
      append({from, length});
      begin_ += length;
      if (newline == nullptr) continue;
      ++begin_;
      ++line_;
      if (!std::all_of(row_.begin(), row_.end(), [](char c) { return is_blank(c); })) return true;
      row_.clear();
    }
    return !std::all_of(row_.begin(), row_.end(), [](char c) { return is_blank(c); });
  }

  void skip_blanks() {
    while (is_blank(peek())) take();
  }

  /// The next element of the array, up to the comma or bracket that ends it.
  bool collect_element() {
    if (array_done_) return false;
    skip_blanks();
    if (peek() == ']' && !had_element_) return end_array();
    row_line_ = line_;
    int depth = 0;
    bool in_string = false;
    for (;;) {
      const int c = peek();
      if (c == kEnd)
        throw Error(ErrorKind::kInput, name_,
                    format("ends inside the array, in the row that begins in line {}", row_line_))
            .hint("is the file cut off?");
      if (!in_string && depth == 0 && (c == ',' || c == ']')) break;
      const char letter = static_cast<char>(take());
      append({&letter, 1});
      if (in_string) {
        if (letter == '\\') {
          const char escaped = static_cast<char>(take());
          append({&escaped, 1});
        }
        in_string = letter != '"';
      } else if (letter == '"') {
        in_string = true;
      } else {
        depth += (letter == '{' || letter == '[') - (letter == '}' || letter == ']');
      }
    }
    had_element_ = true;
    if (take() == ']') end_array();
    return true;
  }

  bool end_array() {
    if (!had_element_) take();
    array_done_ = true;
    skip_blanks();
    if (peek() != kEnd) fail_here("holds something after the end of the array");
    return false;
  }

  Json parse() const {
    try {
      return parse_json(row_, "row");
    } catch (const Error& error) {
      // "row:LINE:COLUMN", counted inside the row.
      std::int64_t line = 1;
      std::string column = error.subject();
      if (const std::size_t first = column.find(':'); first != std::string::npos) {
        const std::size_t second = column.find(':', first + 1);
        if (second != std::string::npos) {
          line = std::stoll(column.substr(first + 1, second - first - 1));
          column = column.substr(second);
        }
      } else {
        column.clear();
      }
      throw Error(ErrorKind::kInput, format("{}:{}{}", name_, row_line_ + line - 1, column),
                  error.message());
    }
  }

  std::string name_;
  std::size_t max_row_bytes_;
  std::unique_ptr<TextSource> source_;
  std::array<char, 1 << 16> buffer_{};
  std::size_t begin_ = 0, end_ = 0;
  std::string row_;
  std::int64_t line_ = 1, row_line_ = 1;
  bool at_end_ = false, is_array_ = false, array_done_ = false, had_element_ = false;
};

}  // namespace

std::unique_ptr<TableReader> open_jsonl(const std::filesystem::path& file,
                                        std::size_t max_row_bytes) {
  return std::make_unique<JsonReader>(file, max_row_bytes);
}

}  // namespace espalier
