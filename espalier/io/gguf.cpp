// GGUF files as objects: opening (split files included) and typed look-ups.
#include "espalier/io/gguf.h"

#include <cstring>
#include <type_traits>
#include <utility>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/gguf_internal.h"

namespace espalier {
namespace {

std::string_view type_name_of(const GgufValue& value) { return gguf_value_type_name(value.type); }

/// The position of this file among its siblings, from a name like `x-00002-of-00003.gguf`.
struct SplitName {
  std::string prefix;  // up to and without "-00002-of-00003.gguf"
  std::uint64_t number = 0, count = 0;

  std::string sibling(std::uint64_t index) const {
    return format("{}-{:05}-of-{:05}.gguf", prefix, index, count);
  }
};

std::optional<SplitName> parse_split_name(const std::string& name) {
  constexpr std::string_view kPattern = "-00000-of-00000.gguf";
  if (name.size() <= kPattern.size()) return std::nullopt;
  SplitName split;
  split.prefix = name.substr(0, name.size() - kPattern.size());
  const std::string_view tail = std::string_view(name).substr(split.prefix.size());
  for (std::size_t i = 0; i < kPattern.size(); ++i) {
    const bool digit = kPattern[i] == '0';
    if (digit ? tail[i] < '0' || tail[i] > '9' : tail[i] != kPattern[i]) return std::nullopt;
  }
  split.number = std::stoull(std::string(tail.substr(1, 5)));
  split.count = std::stoull(std::string(tail.substr(10, 5)));
  if (split.number < 1 || split.number > split.count) return std::nullopt;
  return split;
}

template <class Wide, class Narrow>
void append_numbers(const std::string& raw, std::vector<Wide>& out) {
  for (std::size_t at = 0; at + sizeof(Narrow) <= raw.size(); at += sizeof(Narrow)) {
    Narrow value;
    std::memcpy(&value, raw.data() + at, sizeof(Narrow));
    out.push_back(static_cast<Wide>(value));
  }
}

template <class Number>
GgufArray number_array(GgufValueType type, std::span<const Number> values) {
  GgufArray array;
  array.element_type = type;
  array.count = values.size();
  array.raw.assign(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  return array;
}

std::uint64_t uint_of(const std::vector<std::pair<std::string, GgufValue>>& metadata,
                      std::string_view key) {
  for (const auto& [name, value] : metadata) {
    if (name != key) continue;
    if (const auto* number = std::get_if<std::uint64_t>(&value.value)) return *number;
    if (const auto* number = std::get_if<std::int64_t>(&value.value);
        number != nullptr && *number >= 0) {
      return static_cast<std::uint64_t>(*number);
    }
  }
  return 0;
}

void add_tensors(GgufHeader& header, const std::shared_ptr<const MappedFile>& file,
                 std::vector<GgufTensor>& tensors) {
  for (GgufTensorInfo& info : header.tensors) {
    GgufTensor tensor;
    tensor.name = std::move(info.name);
    tensor.type = info.type;
    tensor.shape = std::move(info.shape);
    if (info.bytes > 0) tensor.data = file->bytes().subspan(info.begin, info.bytes);
    tensor.file = file;
    tensors.push_back(std::move(tensor));
  }
}

/// The other parts of a split file, in order. The first part's metadata stands for all.
void add_siblings(const std::filesystem::path& folder, const SplitName& split,
                  std::vector<GgufTensor>& tensors) {
  ProblemList problems(ErrorKind::kInput, (folder / split.sibling(1)).string());
  for (std::uint64_t i = 2; i <= split.count; ++i) {
    const std::filesystem::path path = folder / split.sibling(i);
    if (!std::filesystem::exists(path)) {
      problems.add(
          format("part {} of {} is missing: {}", i, split.count, path.filename().string()));
      continue;
    }
    const auto file = MappedFile::open(path);
    GgufHeader header = parse_gguf_header(file->bytes(), path.string());
    const std::uint64_t number = uint_of(header.metadata, "split.no");
    const std::uint64_t count = uint_of(header.metadata, "split.count");
    if (number != i - 1 || count != split.count) {
      problems.add(
          format("{} says it is part {} of {} (split.no, split.count), expected part {} of {}",
                 path.filename().string(), number + 1, count, i, split.count));
    }
    add_tensors(header, file, tensors);
  }
  problems.throw_if_any("put all parts of the model into one folder");
}

}  // namespace

GgufValue GgufValue::u32(std::uint32_t v) { return {GgufValueType::kU32, std::uint64_t{v}}; }
GgufValue GgufValue::f32(float v) { return {GgufValueType::kF32, static_cast<double>(v)}; }
GgufValue GgufValue::boolean(bool v) { return {GgufValueType::kBool, v}; }
GgufValue GgufValue::string(std::string v) { return {GgufValueType::kString, std::move(v)}; }
GgufValue GgufValue::strings(std::vector<std::string> v) {
  GgufArray array;
  array.element_type = GgufValueType::kString;
  array.count = v.size();
  array.strings = std::move(v);
  return {GgufValueType::kArray, std::move(array)};
}
GgufValue GgufValue::i32s(std::span<const std::int32_t> v) {
  return {GgufValueType::kArray, number_array(GgufValueType::kI32, v)};
}
GgufValue GgufValue::f32s(std::span<const float> v) {
  return {GgufValueType::kArray, number_array(GgufValueType::kF32, v)};
}

std::int64_t GgufTensor::numel() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape)
    ESPALIER_ASSERT(!__builtin_mul_overflow(count, size, &count));
  return count;
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  const auto split = parse_split_name(path.filename().string());
  GgufFile result;
  result.path_ = path;
  if (split && split->count > 1 && split->number != 1)
    result.path_ = path.parent_path() / split->sibling(1);
  const auto file = MappedFile::open(result.path_);
  GgufHeader header = parse_gguf_header(file->bytes(), result.path_.string());
  const std::uint64_t parts = uint_of(header.metadata, "split.count");
  if (parts > 1 && (!split || split->count != parts)) {
    throw Error(
        ErrorKind::kInput, result.path_.string(),
        format(
            "is one of {} parts (split.count), but is not named like \"model-00001-of-{:05}.gguf\"",
            parts, parts))
        .hint("give the parts their original names back");
  }
  result.alignment_ = header.alignment;
  add_tensors(header, file, result.tensors_);
  if (parts > 1) {
    const std::uint64_t expected = uint_of(header.metadata, "split.tensors.count");
    add_siblings(result.path_.parent_path(), *split, result.tensors_);
    if (expected != 0 && expected != result.tensors_.size()) {
      throw Error(ErrorKind::kInput, result.path_.string(),
                  format("promises {} tensors (split.tensors.count), but its {} parts hold {}",
                         expected, parts, result.tensors_.size()));
    }
  }
  for (auto& entry : header.metadata) {
    // The parts are one object from here on, and what is written from it is one file.
    if (parts > 0 && entry.first.starts_with("split.")) continue;
    result.key_index_.emplace(entry.first, result.metadata_.size());
    result.metadata_.push_back(std::move(entry));
  }
  for (std::size_t i = 0; i < result.tensors_.size(); ++i) {
    if (!result.tensor_index_.emplace(result.tensors_[i].name, i).second) {
      throw Error(ErrorKind::kInput, result.path_.string(),
                  format("tensor \"{}\" appears in two parts", result.tensors_[i].name));
    }
  }
  return result;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = key_index_.find(key);
  return found == key_index_.end() ? nullptr : &metadata_[found->second].second;
}

namespace {

[[noreturn]] void wrong_type(const std::filesystem::path& path, std::string_view key,
                             const GgufValue& value, std::string_view expected) {
  std::string found(type_name_of(value));
  if (const auto* array = std::get_if<GgufArray>(&value.value)) {
    found = format("an array of {} {}", array->count, gguf_value_type_name(array->element_type));
  }
  throw Error(ErrorKind::kInput, path.string(),
              format("the key \"{}\" is {}, expected {}", key, found, expected));
}

}  // namespace

std::optional<std::uint64_t> GgufFile::get_uint(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<std::uint64_t>(&value->value)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&value->value);
      number != nullptr && *number >= 0) {
    return static_cast<std::uint64_t>(*number);
  }
  wrong_type(path_, key, *value, "an integer >= 0");
}

std::optional<double> GgufFile::get_float(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<double>(&value->value)) return *number;
  if (const auto* number = std::get_if<std::uint64_t>(&value->value))
    return static_cast<double>(*number);
  if (const auto* number = std::get_if<std::int64_t>(&value->value))
    return static_cast<double>(*number);
  wrong_type(path_, key, *value, "a number");
}

std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* flag = std::get_if<bool>(&value->value)) return *flag;
  wrong_type(path_, key, *value, "a boolean");
}

std::optional<std::string> GgufFile::get_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* text = std::get_if<std::string>(&value->value)) return *text;
  wrong_type(path_, key, *value, "a string");
}

std::optional<std::vector<std::string>> GgufFile::get_strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* array = std::get_if<GgufArray>(&value->value);
  if (array == nullptr || array->element_type != GgufValueType::kString) {
    wrong_type(path_, key, *value, "an array of strings");
  }
  return array->strings;
}

std::optional<std::vector<std::int64_t>> GgufFile::get_ints(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* array = std::get_if<GgufArray>(&value->value);
  if (array == nullptr) wrong_type(path_, key, *value, "an array of integers");
  std::vector<std::int64_t> numbers;
  numbers.reserve(array->count);
  switch (array->element_type) {
    case GgufValueType::kU8:
    case GgufValueType::kBool:
      append_numbers<std::int64_t, std::uint8_t>(array->raw, numbers);
      break;
    case GgufValueType::kI8:
      append_numbers<std::int64_t, std::int8_t>(array->raw, numbers);
      break;
    case GgufValueType::kU16:
      append_numbers<std::int64_t, std::uint16_t>(array->raw, numbers);
      break;
    case GgufValueType::kI16:
      append_numbers<std::int64_t, std::int16_t>(array->raw, numbers);
      break;
    case GgufValueType::kU32:
      append_numbers<std::int64_t, std::uint32_t>(array->raw, numbers);
      break;
    case GgufValueType::kI32:
      append_numbers<std::int64_t, std::int32_t>(array->raw, numbers);
      break;
    case GgufValueType::kU64:
      append_numbers<std::int64_t, std::uint64_t>(array->raw, numbers);
      break;
    case GgufValueType::kI64:
      append_numbers<std::int64_t, std::int64_t>(array->raw, numbers);
      break;
    default:
      wrong_type(path_, key, *value, "an array of integers");
  }
  return numbers;
}

std::optional<std::vector<double>> GgufFile::get_floats(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* array = std::get_if<GgufArray>(&value->value);
  std::vector<double> numbers;
  if (array != nullptr && array->element_type == GgufValueType::kF32) {
    append_numbers<double, float>(array->raw, numbers);
  } else if (array != nullptr && array->element_type == GgufValueType::kF64) {
    append_numbers<double, double>(array->raw, numbers);
  } else {
    wrong_type(path_, key, *value, "an array of floats");
  }
  return numbers;
}

std::string GgufFile::architecture() const {
  auto name = get_string("general.architecture");
  if (!name || name->empty()) {
    throw Error(ErrorKind::kInput, path_.string(),
                "has no key \"general.architecture\": not a language model?");
  }
  return *std::move(name);
}

}  // namespace espalier
