// The safetensors header: a streaming JSON reader that accepts exactly the header's grammar (so
// memory stays within a small multiple of the header and nesting is bounded), then the checks on
// types, sizes and ranges.
#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/safetensors_internal.h"

namespace espalier {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;  // the limit of the format's own library
constexpr std::size_t kMaxRank = 64;
constexpr std::string_view kMetadata = "__metadata__";

/// Receives nlohmann's parse events. Every event returns false, with `problem` set, unless the
/// grammar allows it here:
///   root { name: { "dtype": string, "shape": [uint...], "data_offsets": [uint, uint] },
///   "__metadata__": {str: str} }
class HeaderReader {
 public:
  using Json = nlohmann::json;
  explicit HeaderReader(SafetensorsHeader& header) : header_(header) {}

  std::string problem;

  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a boolean"); }
  bool number_integer(std::int64_t value) { return unexpected(format("the number {}", value)); }
  bool number_float(double, const std::string& text) {
    return unexpected(format("the number {}", text));
  }
  bool binary(std::vector<std::uint8_t>&) { return unexpected("binary data"); }

  bool number_unsigned(std::uint64_t value) {
    if (state_ == State::kShape) {
      if (entry_.shape.size() >= kMaxRank)
        return fail(format("has more than {} dimensions", kMaxRank));
      if (value > static_cast<std::uint64_t>(INT64_MAX))
        return fail(format("dimension {} is too large", value));
      entry_.shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (state_ == State::kOffsets) {
      if (offset_count_ >= 2) return fail("data_offsets holds more than two numbers");
      (offset_count_++ == 0 ? entry_.begin : entry_.end) = value;
      return true;
    }
    return unexpected(format("the number {}", value));
  }

  bool string(std::string& text) {
    if (state_ == State::kMetadataValue) {
      header_.metadata[key_] = std::move(text);
      state_ = State::kMetadata;
      return true;
    }
    if (state_ == State::kField && key_ == "dtype") {
      const auto dtype = parse_safetensors_dtype(text);
      if (!dtype)
        return fail(format("has dtype \"{}\", which we do not have", text),
                    ErrorKind::kUnsupported);
      entry_.dtype = *dtype;
      state_ = State::kTensor;
      return true;
    }
    return unexpected(format("the string \"{}\"", text.substr(0, 40)));
  }

  bool start_object(std::size_t) {
    if (state_ == State::kStart) {
      state_ = State::kRoot;
      return true;
    }
    if (state_ != State::kRootValue) return unexpected("an object");
    if (key_ == kMetadata) {
      state_ = State::kMetadata;
    } else {
      entry_ = SafetensorsEntry{};
      entry_.name = key_;
      has_dtype_ = has_shape_ = has_offsets_ = false;
      offset_count_ = 0;
      state_ = State::kTensor;
    }
    return true;
  }

  bool key(std::string& text) {
    key_ = std::move(text);
    switch (state_) {
      case State::kRoot:
        state_ = State::kRootValue;
        if (!names_.insert(key_).second) return fail_at(key_, "appears twice in the header");
        return true;
      case State::kMetadata:
        state_ = State::kMetadataValue;
        if (header_.metadata.count(key_) != 0)
          return fail_at(kMetadata, format("holds the key \"{}\" twice", key_));
        return true;
      case State::kTensor: {
        state_ = State::kField;
        bool* seen = key_ == "dtype"          ? &has_dtype_
                     : key_ == "shape"        ? &has_shape_
                     : key_ == "data_offsets" ? &has_offsets_
                                              : nullptr;
        if (seen == nullptr)
          return fail(format("has the unknown field \"{}\"", key_.substr(0, 40)));
        if (*seen) return fail(format("has the field \"{}\" twice", key_));
        *seen = true;
        return true;
      }
      default:
        return unexpected("a key");
    }
  }

  bool end_object() {
    if (state_ == State::kMetadata) {
      state_ = State::kRoot;
    } else if (state_ == State::kTensor) {
      if (!has_dtype_ || !has_shape_ || !has_offsets_) {
        return fail(format("has no {}", !has_dtype_   ? "dtype"
                                        : !has_shape_ ? "shape"
                                                      : "data_offsets"));
      }
      header_.entries.push_back(std::move(entry_));
      state_ = State::kRoot;
    } else {
      ESPALIER_ASSERT(state_ == State::kRoot);
      state_ = State::kEnd;
    }
    return true;
  }

  bool start_array(std::size_t) {
    if (state_ == State::kField && key_ == "shape") {
      state_ = State::kShape;
    } else if (state_ == State::kField && key_ == "data_offsets") {
      state_ = State::kOffsets;
    } else {
      return unexpected("an array");
    }
    return true;
  }

  bool end_array() {
    if (state_ == State::kOffsets && offset_count_ != 2)
      return fail("data_offsets holds fewer than two numbers");
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception& error) {
    std::string_view what = error.what();
    if (const std::size_t colon = what.find("parse error"); colon != std::string_view::npos)
      what.remove_prefix(colon);
    problem = format("the header is not valid JSON at byte {}: {}",
                     8 + (position > 0 ? position - 1 : 0), what.substr(0, 200));
    return false;
  }

  ErrorKind kind() const { return kind_; }

 private:
  enum class State : std::uint8_t {
    kStart,
    kRoot,
    kRootValue,
    kMetadata,
    kMetadataValue,
    kTensor,
    kField,
    kShape,
    kOffsets,
    kEnd
  };

  bool fail_at(std::string_view name, std::string_view what, ErrorKind kind = ErrorKind::kInput) {
    problem = format("tensor \"{}\" {}", name.substr(0, 200), what);
    if (name == kMetadata) problem = format("{} {}", kMetadata, what);
    kind_ = kind;
    return false;
  }
  bool fail(std::string_view what, ErrorKind kind = ErrorKind::kInput) {
    return fail_at(entry_.name, what, kind);
  }

  bool unexpected(std::string_view found) {
    switch (state_) {
      case State::kStart:
        problem = format("the header is {}, expected an object", found);
        return false;
      case State::kRootValue:
        return fail_at(key_, format("is {}, expected an object", found));
      case State::kMetadataValue:
        return fail_at(kMetadata, format("holds {} under \"{}\", expected a string", found,
                                         key_.substr(0, 200)));
      case State::kField:
        return fail(format("has {} as {}", found, key_.substr(0, 40)));
      case State::kShape:
        return fail(format("has {} in its shape, expected integers >= 0", found));
      case State::kOffsets:
        return fail(format("has {} in data_offsets, expected two integers >= 0", found));
      default:
        problem = format("the header holds {} in an unexpected place", found);
        return false;
    }
  }

  SafetensorsHeader& header_;
  State state_ = State::kStart;
  ErrorKind kind_ = ErrorKind::kInput;
  std::string key_;
  SafetensorsEntry entry_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  int offset_count_ = 0;
  std::set<std::string> names_;
};

/// Bytes that shape and dtype need; nullopt when that does not fit 63 bits. Zeros are left out of
/// that test: an empty tensor whose other sizes overflow would make every product over its shape
/// undefined.
std::optional<std::uint64_t> needed_bytes(const SafetensorsEntry& entry) {
  std::int64_t count = dtype_size(entry.dtype);
  bool empty = false;
  for (const std::int64_t size : entry.shape) {
    empty = empty || size == 0;
    if (size != 0 && __builtin_mul_overflow(count, size, &count)) return std::nullopt;
  }
  return empty ? 0 : static_cast<std::uint64_t>(count);
}

std::string shape_of(const SafetensorsEntry& entry) {
  std::string text = "[";
  for (std::size_t i = 0; i < entry.shape.size(); ++i)
    text += (i ? ", " : "") + std::to_string(entry.shape[i]);
  return text + "]";
}

/// Ranges fit the shapes, lie inside the data and cover it once. All problems at once.
void check_ranges(const SafetensorsHeader& header, std::uint64_t data_size,
                  std::string_view source) {
  ProblemList problems(ErrorKind::kInput, std::string(source));
  std::uint64_t expected_begin = 0;
  std::string_view previous = "the start of the data";
  bool truncated = false;
  for (const SafetensorsEntry& entry : header.entries) {
    if (entry.end < entry.begin) {
      problems.add(format("tensor \"{}\" ends at {} before it begins at {}", entry.name, entry.end,
                          entry.begin));
      continue;
    }
    const auto needed = needed_bytes(entry);
    if (!needed || *needed != entry.end - entry.begin) {
      problems.add(format(
          "tensor \"{}\" has shape {} of {}, which needs {} bytes, but data_offsets give it {}",
          entry.name, shape_of(entry), safetensors_name(entry.dtype),
          needed ? std::to_string(*needed) : "over 2^63", entry.end - entry.begin));
    }
    if (entry.end > data_size) {
      truncated = true;
      problems.add(format("tensor \"{}\" ends at byte {} of the data, but the file holds only {}",
                          entry.name, entry.end, data_size));
    }
    if (entry.begin != expected_begin) {
      problems.add(format("tensor \"{}\" begins at byte {} of the data, expected {} (after {}): {}",
                          entry.name, entry.begin, expected_begin, previous,
                          entry.begin < expected_begin ? "tensors overlap" : "a hole"));
    }
    expected_begin = std::max(expected_begin, entry.end);
    previous = entry.name;
  }
  if (problems.empty() && expected_begin != data_size) {
    problems.add(format("the tensors end at byte {} of the data, but the file goes on to {}",
                        expected_begin, data_size));
  }
  problems.throw_if_any(truncated ? "the file looks truncated; copy or download it again" : "");
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> bytes,
                                           std::string_view source) {
  static_assert(std::endian::native == std::endian::little, "headers are read in place");
  const auto refuse = [&](std::string_view what) { return Error(ErrorKind::kInput, source, what); };
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("version https://git-lfs")) {
    throw refuse("is a Git LFS pointer, not the weights")
        .hint("run `git lfs pull` in the model's folder");
  }
  if (bytes.size() < 8)
    throw refuse(format("has {} bytes, too few for a safetensors file", bytes.size()));
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  if (length > kMaxHeader) {
    throw refuse(
        format("gives a header length of {}, over the limit of {}: not a safetensors file?", length,
               kMaxHeader));
  }
  if (length > bytes.size() - 8) {
    throw refuse(
        format("gives a header length of {}, but only {} bytes follow", length, bytes.size() - 8))
        .hint("the file looks truncated; copy or download it again");
  }
  const std::string_view json = text.substr(8, length);
  if (!json.starts_with('{'))
    throw refuse("has a header that does not begin with '{': not a safetensors file?");
  SafetensorsHeader header;
  header.data_start = 8 + length;
  HeaderReader reader(header);
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) {
    throw Error(reader.kind(), source, reader.problem);
  }
  std::stable_sort(header.entries.begin(), header.entries.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  check_ranges(header, bytes.size() - header.data_start, source);
  return header;
}

}  // namespace espalier
