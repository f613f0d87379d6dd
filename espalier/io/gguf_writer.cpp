// Writing GGUF v3: the header is built in memory from the plan, tensors stream behind it.
#include <bit>
#include <cstring>
#include <set>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/file_sink_internal.h"
#include "espalier/io/gguf_internal.h"

namespace espalier {
namespace {

constexpr std::size_t kMaxTensorName = 64;
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::string_view kAlignmentKey = "general.alignment";

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void put_string(std::string& out, std::string_view text) {
  put<std::uint64_t>(out, text.size());
  out.append(text);
}

[[noreturn]] void bad_value(std::string_view key, std::string_view what) {
  throw Error(ErrorKind::kInternal, key, what);
}

/// A scalar of the declared width; a value that does not fit it is a bug of the caller.
template <class Narrow, class Wide>
void put_number(std::string& out, const GgufValue& value, std::string_view key) {
  const auto* number = std::get_if<Wide>(&value.value);
  if (number == nullptr) bad_value(key, "GGUF value and its type differ");
  const auto narrow = static_cast<Narrow>(*number);
  if constexpr (std::is_integral_v<Wide>) {
    if (static_cast<Wide>(narrow) != *number)
      bad_value(key, format("{} does not fit its GGUF type", *number));
  }
  put(out, narrow);
}

void put_array(std::string& out, const GgufArray& array, std::string_view key) {
  put(out, static_cast<std::uint32_t>(array.element_type));
  put<std::uint64_t>(out, array.count);
  if (array.element_type == GgufValueType::kString) {
    if (array.strings.size() != array.count)
      bad_value(key, "GGUF array count and its strings differ");
    for (const std::string& text : array.strings) put_string(out, text);
    return;
  }
  const std::size_t size = gguf_value_size(array.element_type);
  if (size == 0 || array.raw.size() != array.count * size)
    bad_value(key, "GGUF array count and its bytes differ");
  out.append(array.raw);
}

void put_value(std::string& out, const GgufValue& value, std::string_view key) {
  put(out, static_cast<std::uint32_t>(value.type));
  switch (value.type) {
    case GgufValueType::kU8:
      return put_number<std::uint8_t, std::uint64_t>(out, value, key);
    case GgufValueType::kU16:
      return put_number<std::uint16_t, std::uint64_t>(out, value, key);
    case GgufValueType::kU32:
      return put_number<std::uint32_t, std::uint64_t>(out, value, key);
    case GgufValueType::kU64:
      return put_number<std::uint64_t, std::uint64_t>(out, value, key);
    case GgufValueType::kI8:
      return put_number<std::int8_t, std::int64_t>(out, value, key);
    case GgufValueType::kI16:
      return put_number<std::int16_t, std::int64_t>(out, value, key);
    case GgufValueType::kI32:
      return put_number<std::int32_t, std::int64_t>(out, value, key);
    case GgufValueType::kI64:
      return put_number<std::int64_t, std::int64_t>(out, value, key);
    case GgufValueType::kF32:
      return put_number<float, double>(out, value, key);
    case GgufValueType::kF64:
      return put_number<double, double>(out, value, key);
    case GgufValueType::kBool: {
      const auto* flag = std::get_if<bool>(&value.value);
      if (flag == nullptr) bad_value(key, "GGUF value and its type differ");
      return put<std::uint8_t>(out, *flag ? 1 : 0);
    }
    case GgufValueType::kString: {
      const auto* text = std::get_if<std::string>(&value.value);
      if (text == nullptr) bad_value(key, "GGUF value and its type differ");
      return put_string(out, *text);
    }
    case GgufValueType::kArray: {
      const auto* array = std::get_if<GgufArray>(&value.value);
      if (array == nullptr) bad_value(key, "GGUF value and its type differ");
      return put_array(out, *array, key);
    }
  }
}

std::uint64_t padded(std::uint64_t size, std::uint64_t alignment) {
  return (size + alignment - 1) / alignment * alignment;
}

std::uint64_t bytes_of(const GgufTensorPlan& tensor) {
  std::int64_t numel = 1;
  for (const std::int64_t size : tensor.shape) {
    ESPALIER_ASSERT(size >= 0 && !__builtin_mul_overflow(numel, size, &numel));
  }
  const GgufTypeInfo& info = gguf_type_info(tensor.type);
  const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (row % info.block != 0) {
    throw Error(ErrorKind::kInternal, tensor.name,
                format("rows of {} elements cannot be {}, which stores blocks of {}", row,
                       info.name, info.block));
  }
  return static_cast<std::uint64_t>(gguf_bytes(tensor.type, numel));
}

void put_tensor_infos(std::string& out, const std::vector<GgufTensorPlan>& plan,
                      std::uint64_t alignment) {
  std::uint64_t offset = 0;
  std::set<std::string_view> names;
  for (const GgufTensorPlan& tensor : plan) {
    if (!names.insert(tensor.name).second)
      throw Error(ErrorKind::kInternal, tensor.name, "is planned twice");
    if (tensor.name.size() > kMaxTensorName || tensor.shape.size() > 4) {
      throw Error(ErrorKind::kInternal, tensor.name,
                  "GGUF allows names of 64 bytes and 4 dimensions");
    }
    put_string(out, tensor.name);
    put<std::uint32_t>(out, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) {
      put<std::uint64_t>(out, static_cast<std::uint64_t>(*size));
    }
    put(out, static_cast<std::uint32_t>(tensor.type));
    put(out, offset);
    offset += padded(bytes_of(tensor), alignment);
  }
}

}  // namespace

struct GgufWriter::State {
  explicit State(const std::filesystem::path& path) : sink(path) {}
  FileSink sink;
  std::vector<GgufTensorPlan> plan;
  std::uint64_t alignment = kDefaultAlignment;
  std::size_t next = 0;

  void check_next(std::uint64_t size) const {
    if (next >= plan.size())
      throw Error(ErrorKind::kInternal, sink.path().string(), "more tensors than planned");
    if (bytes_of(plan[next]) != size) {
      throw Error(ErrorKind::kInternal, plan[next].name,
                  format("got {} bytes, the plan needs {}", size, bytes_of(plan[next])));
    }
  }
  void pad() { sink.write_zeros(padded(sink.size(), alignment) - sink.size()); }
};

GgufWriter::GgufWriter(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, GgufValue>>& metadata,
                       std::vector<GgufTensorPlan> plan, std::uint64_t alignment) {
  bool has_alignment = false;
  std::set<std::string_view> keys;
  for (const auto& [key, value] : metadata) {
    if (!keys.insert(key).second) bad_value(key, "this GGUF key is given twice");
    if (key != kAlignmentKey) continue;
    const auto* number = std::get_if<std::uint64_t>(&value.value);
    if (number == nullptr) bad_value(key, "GGUF value and its type differ");
    alignment = *number;
    has_alignment = true;
  }
  if (!std::has_single_bit(alignment))
    bad_value(kAlignmentKey, format("{} is not a power of two", alignment));
  const bool add_alignment = !has_alignment && alignment != kDefaultAlignment;

  std::string header = "GGUF";
  put<std::uint32_t>(header, 3);
  put<std::uint64_t>(header, plan.size());
  put<std::uint64_t>(header, metadata.size() + (add_alignment ? 1 : 0));
  for (const auto& [key, value] : metadata) {
    put_string(header, key);
    put_value(header, value, key);
  }
  if (add_alignment) {
    put_string(header, kAlignmentKey);
    put_value(header, GgufValue::u32(static_cast<std::uint32_t>(alignment)), kAlignmentKey);
  }
  put_tensor_infos(header, plan, alignment);

  state_ = std::make_unique<State>(path);
  state_->plan = std::move(plan);
  state_->alignment = alignment;
  state_->sink.write(header);
  state_->pad();
}

GgufWriter::~GgufWriter() = default;

void GgufWriter::append(std::span<const std::byte> bytes) {
  state_->check_next(bytes.size());
  state_->sink.write(bytes);
  state_->pad();
  ++state_->next;
}

void GgufWriter::append(const GgufTensor& source) {
  state_->check_next(source.data.size());
  if (source.file == nullptr || source.data.empty()) {
    state_->sink.write(source.data);
  } else {
    const auto offset =
        static_cast<std::uint64_t>(source.data.data() - source.file->bytes().data());
    state_->sink.copy(*source.file, offset, source.data.size());
  }
  state_->pad();
  ++state_->next;
}

void GgufWriter::append(const ByteProducer& producer) {
  const std::uint64_t before = state_->sink.size();
  ESPALIER_ASSERT(state_->next < state_->plan.size());
  producer([this](std::span<const std::byte> piece) { state_->sink.write(piece); });
  state_->check_next(state_->sink.size() - before);
  state_->pad();
  ++state_->next;
}

void GgufWriter::finish() {
  if (state_->next != state_->plan.size()) {
    throw Error(ErrorKind::kInternal, state_->sink.path().string(),
                format("{} of {} planned tensors were written", state_->next, state_->plan.size()));
  }
  state_->sink.finish();
}

std::uint64_t GgufWriter::size() const { return state_->sink.size(); }
std::string GgufWriter::digest() const { return state_->sink.digest(); }

void GgufWriter::set_on_bytes(std::function<void(std::uint64_t)> on_bytes) {
  state_->sink.set_on_bytes(std::move(on_bytes));
}

}  // namespace espalier
