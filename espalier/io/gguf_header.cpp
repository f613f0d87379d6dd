// The GGUF header: metadata and tensor table, read with every length checked against what the file
// still holds.
#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/gguf_internal.h"

namespace espalier {
namespace {

static_assert(std::endian::native == std::endian::little, "values are read in place");

constexpr std::uint32_t kMaxDims = 4;
constexpr std::uint64_t kMaxAlignment = 1u << 30;
constexpr std::uint64_t kMinKvBytes = 8 + 4 + 1;          // empty key, type, one byte
constexpr std::uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;  // empty name, no dims, type, offset
constexpr std::string_view kTruncatedHint = "the file looks truncated; copy or download it again";

std::string quote_name(std::string_view name) { return format("\"{}\"", name.substr(0, 200)); }

/// Reads forward; every failure names the file offset and what was being read.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, std::string_view source)
      : bytes_(bytes), source_(source) {}

  std::uint64_t position() const { return position_; }
  std::uint64_t remaining() const { return bytes_.size() - position_; }

  [[nodiscard]] Error refuse(std::string_view what, ErrorKind kind = ErrorKind::kInput) const {
    return Error(kind, source_, format("at byte {}: {}", position_, what));
  }

  template <class T>
  T number(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string string(std::string_view what) {
    const auto length = number<std::uint64_t>(what);
    const auto data = take(length, what);
    return std::string(reinterpret_cast<const char*>(data.data()), data.size());
  }

  std::span<const std::byte> take(std::uint64_t size, std::string_view what) {
    if (size > remaining()) {
      throw refuse(
          format("{} needs {} bytes, but the file has only {} left", what, size, remaining()))
          .hint(kTruncatedHint);
    }
    const auto part = bytes_.subspan(position_, size);
    position_ += size;
    return part;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string_view source_;
  std::uint64_t position_ = 0;
};

GgufValueType read_value_type(Cursor& cursor, std::string_view what) {
  const auto id = cursor.number<std::uint32_t>(what);
  if (id > static_cast<std::uint32_t>(GgufValueType::kF64)) {
    throw cursor.refuse(format("{} has the value type {}, known are 0 to 12", what, id));
  }
  return static_cast<GgufValueType>(id);
}

bool read_bool(Cursor& cursor, std::string_view what) {
  const auto byte = cursor.number<std::uint8_t>(what);
  if (byte > 1)
    throw cursor.refuse(format("{} is a boolean of value {}, expected 0 or 1", what, byte));
  return byte == 1;
}

GgufArray read_array(Cursor& cursor, std::string_view what) {
  GgufArray array;
  array.element_type = read_value_type(cursor, what);
  array.count = cursor.number<std::uint64_t>(what);
  if (array.element_type == GgufValueType::kArray) {
    throw cursor.refuse(format("{} is an array of arrays, which no known reader supports", what),
                        ErrorKind::kUnsupported);
  }
  const bool strings = array.element_type == GgufValueType::kString;
  const std::uint64_t least = strings ? 8 : gguf_value_size(array.element_type);
  if (array.count > cursor.remaining() / least) {
    throw cursor
        .refuse(format("{} claims {} elements of type {}, but the file has only {} bytes left",
                       what, array.count, gguf_value_type_name(array.element_type),
                       cursor.remaining()))
        .hint(kTruncatedHint);
  }
  if (!strings) {
    const auto raw = cursor.take(array.count * least, what);
    array.raw.assign(reinterpret_cast<const char*>(raw.data()), raw.size());
    return array;
  }
  array.strings.reserve(array.count);
  for (std::uint64_t i = 0; i < array.count; ++i) array.strings.push_back(cursor.string(what));
  return array;
}

GgufValue read_value(Cursor& cursor, std::string_view what) {
  GgufValue result;
  result.type = read_value_type(cursor, what);
  auto& value = result.value;
  switch (result.type) {
    case GgufValueType::kU8:
      value = std::uint64_t{cursor.number<std::uint8_t>(what)};
      break;
    case GgufValueType::kU16:
      value = std::uint64_t{cursor.number<std::uint16_t>(what)};
      break;
    case GgufValueType::kU32:
      value = std::uint64_t{cursor.number<std::uint32_t>(what)};
      break;
    case GgufValueType::kU64:
      value = cursor.number<std::uint64_t>(what);
      break;
    case GgufValueType::kI8:
      value = std::int64_t{cursor.number<std::int8_t>(what)};
      break;
    case GgufValueType::kI16:
      value = std::int64_t{cursor.number<std::int16_t>(what)};
      break;
    case GgufValueType::kI32:
      value = std::int64_t{cursor.number<std::int32_t>(what)};
      break;
    case GgufValueType::kI64:
      value = cursor.number<std::int64_t>(what);
      break;
    case GgufValueType::kF32:
      value = static_cast<double>(cursor.number<float>(what));
      break;
    case GgufValueType::kF64:
      value = cursor.number<double>(what);
      break;
    case GgufValueType::kBool:
      value = read_bool(cursor, what);
      break;
    case GgufValueType::kString:
      value = cursor.string(what);
      break;
    case GgufValueType::kArray:
      value = read_array(cursor, what);
      break;
  }
  return result;
}

void read_metadata(Cursor& cursor, std::uint64_t count, GgufHeader& header) {
  std::unordered_set<std::string> seen;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::string key = cursor.string(format("key {} of {}", i + 1, count));
    if (!seen.insert(key).second)
      throw cursor.refuse(format("the key {} appears twice", quote_name(key)));
    GgufValue value = read_value(cursor, "the value of " + quote_name(key));
    if (key == "general.alignment") {
      const auto* alignment = std::get_if<std::uint64_t>(&value.value);
      if (alignment == nullptr || !std::has_single_bit(*alignment) || *alignment > kMaxAlignment) {
        throw cursor.refuse(
            format("general.alignment is {}, expected a power of two as u32",
                   alignment != nullptr ? std::to_string(*alignment) : "not an unsigned integer"));
      }
      header.alignment = *alignment;
    }
    header.metadata.emplace_back(std::move(key), std::move(value));
  }
}

/// `begin` is left relative to the data start, which is only known after the last tensor.
GgufTensorInfo read_tensor_info(Cursor& cursor, std::string_view what) {
  GgufTensorInfo info;
  info.name = cursor.string(what);
  const std::string name = "tensor " + quote_name(info.name);
  const auto dims = cursor.number<std::uint32_t>(name);
  if (dims > kMaxDims)
    throw cursor.refuse(
        format("{} has {} dimensions, at most {} are allowed", name, dims, kMaxDims));
  // Zeros stay out of the product: an empty tensor whose other sizes overflow would make every
  // product over its shape undefined.
  std::int64_t product = 1;
  bool empty = false;
  for (std::uint32_t i = 0; i < dims; ++i) {
    const auto size = cursor.number<std::uint64_t>(name);
    empty = empty || size == 0;
    if (size > static_cast<std::uint64_t>(INT64_MAX) ||
        (size != 0 && __builtin_mul_overflow(product, static_cast<std::int64_t>(size), &product))) {
      throw cursor.refuse(format("{} has more than 2^63 elements", name));
    }
    info.shape.insert(info.shape.begin(), static_cast<std::int64_t>(size));
  }
  const std::int64_t numel = empty ? 0 : product;
  const auto type = cursor.number<std::uint32_t>(name);
  const auto type_info = find_gguf_type(type);
  if (!type_info) {
    throw cursor
        .refuse(format("{} has type id {}, which we do not have", name, type),
                ErrorKind::kUnsupported)
        .hint("we read F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K");
  }
  info.type = static_cast<GgufType>(type);
  const std::int64_t row = info.shape.empty() ? 1 : info.shape.back();
  if (row % type_info->block != 0) {
    throw cursor.refuse(format("{} has rows of {} elements, but {} stores blocks of {}", name, row,
                               type_info->name, type_info->block));
  }
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(numel / type_info->block, type_info->bytes, &bytes)) {
    throw cursor.refuse(format("{} has more than 2^63 bytes", name));
  }
  info.bytes = static_cast<std::uint64_t>(bytes);
  info.begin = cursor.number<std::uint64_t>(name);
  return info;
}

/// Offsets are aligned, inside the file and do not overlap. All problems at once.
void place_tensors(GgufHeader& header, std::uint64_t header_end, std::uint64_t file_size,
                   std::string_view source) {
  if (header.tensors.empty()) return;
  const std::uint64_t data_start =
      (header_end + header.alignment - 1) / header.alignment * header.alignment;
  const std::uint64_t available = file_size > data_start ? file_size - data_start : 0;
  ProblemList problems(ErrorKind::kInput, std::string(source));
  bool truncated = false;
  std::vector<const GgufTensorInfo*> order;
  for (GgufTensorInfo& tensor : header.tensors) {
    const std::uint64_t offset = tensor.begin;
    tensor.begin = data_start + offset;
    if (offset % header.alignment != 0) {
      problems.add(format("tensor {} has offset {}, not a multiple of the alignment {}",
                          quote_name(tensor.name), offset, header.alignment));
    }
    if (tensor.bytes > available || offset > available - tensor.bytes) {
      truncated = true;
      problems.add(
          format("tensor {} needs {} bytes at offset {} of the data (file byte {}), but the file "
                 "holds {} of data",
                 quote_name(tensor.name), tensor.bytes, offset, data_start + offset, available));
    } else if (tensor.bytes > 0) {
      order.push_back(&tensor);
    }
  }
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->begin < b->begin; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const GgufTensorInfo& before = *order[i - 1];
    if (before.begin + before.bytes > order[i]->begin) {
      problems.add(format("tensors {} and {} overlap at file byte {}", quote_name(before.name),
                          quote_name(order[i]->name), order[i]->begin));
    }
  }
  problems.throw_if_any(truncated ? kTruncatedHint : "");
}

void check_magic(Cursor& cursor, std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("version https://git-lfs")) {
    throw cursor.refuse("a Git LFS pointer, not the weights")
        .hint("run `git lfs pull` in the model's folder");
  }
  if (!text.starts_with("GGUF")) {
    throw cursor.refuse("the file does not begin with \"GGUF\": not a GGUF file");
  }
  cursor.take(4, "the magic");
}

std::uint32_t read_version(Cursor& cursor) {
  const auto version = cursor.number<std::uint32_t>("the version");
  if (version == 2 || version == 3) return version;
  if (version == 0x02000000 || version == 0x03000000) {
    throw cursor
        .refuse("the file is big-endian, we read little-endian GGUF", ErrorKind::kUnsupported)
        .hint("convert it again on a little-endian machine");
  }
  throw cursor.refuse(format("GGUF version {}, we read 2 and 3", version), ErrorKind::kUnsupported)
      .hint("convert the model again with a current converter");
}

}  // namespace

std::string_view gguf_value_type_name(GgufValueType type) {
  static constexpr std::string_view kNames[] = {"u8",  "i8",  "u16",  "i16",    "u32",
                                                "i32", "f32", "bool", "string", "array",
                                                "u64", "i64", "f64"};
  return kNames[static_cast<std::size_t>(type)];
}

std::size_t gguf_value_size(GgufValueType type) {
  static constexpr std::size_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kSizes[static_cast<std::size_t>(type)];
}

GgufHeader parse_gguf_header(std::span<const std::byte> bytes, std::string_view source) {
  Cursor cursor(bytes, source);
  check_magic(cursor, bytes);
  GgufHeader header;
  header.version = read_version(cursor);
  const auto tensor_count = cursor.number<std::uint64_t>("the tensor count");
  const auto kv_count = cursor.number<std::uint64_t>("the metadata count");
  if (kv_count > cursor.remaining() / kMinKvBytes) {
    throw cursor
        .refuse(format("the metadata count is {}, but only {} bytes follow", kv_count,
                       cursor.remaining()))
        .hint(kTruncatedHint);
  }
  read_metadata(cursor, kv_count, header);
  if (tensor_count > cursor.remaining() / kMinTensorBytes) {
    throw cursor
        .refuse(format("the tensor count is {}, but only {} bytes follow", tensor_count,
                       cursor.remaining()))
        .hint(kTruncatedHint);
  }
  std::unordered_set<std::string> seen;
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    GgufTensorInfo info = read_tensor_info(cursor, format("tensor {} of {}", i + 1, tensor_count));
    if (!seen.insert(info.name).second)
      throw cursor.refuse(format("tensor {} appears twice", quote_name(info.name)));
    header.tensors.push_back(std::move(info));
  }
  place_tensors(header, cursor.position(), bytes.size(), source);
  return header;
}

}  // namespace espalier
