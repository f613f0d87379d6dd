// GGUF v2/v3: strict reading of mapped files and streamed writing (v3, little-endian).
// Source: the GGUF description of the ggml project; block layouts in kernels/gguf_quants.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "espalier/io/byte_stream.h"
#include "espalier/io/mapped_file.h"
#include "espalier/kernels/gguf_quants/gguf_quants.h"

namespace espalier {

/// The value types of the format, with its own numbers.
enum class GgufValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12
};

/// An array value: all elements of one type. Numbers keep their raw little-endian bytes; strings
/// are stored as such.
struct GgufArray {
  GgufValueType element_type = GgufValueType::kU8;
  std::uint64_t count = 0;
  std::string raw;                   // numeric elements, count * size bytes
  std::vector<std::string> strings;  // when element_type == kString
};

/// One metadata value. Integers of any width sit in u64/i64; `type` keeps the width for writing
/// back unchanged.
struct GgufValue {
  GgufValueType type = GgufValueType::kU32;
  std::variant<std::uint64_t, std::int64_t, double, bool, std::string, GgufArray> value;

  static GgufValue u32(std::uint32_t v);
  static GgufValue f32(float v);
  static GgufValue boolean(bool v);
  static GgufValue string(std::string v);
  static GgufValue strings(std::vector<std::string> v);
  static GgufValue i32s(std::span<const std::int32_t> v);
  static GgufValue f32s(std::span<const float> v);
};

/// A tensor of the file. `shape` is in row-major order as libtorch sees it (outermost first): the
/// format's dims reversed.
struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
  std::shared_ptr<const MappedFile> file;

  std::int64_t numel() const;
};

class GgufFile {
 public:
  /// Maps and validates; all lengths are bounded by the file size before anything is allocated. Any
  /// part of a split model (`-00001-of-0000N.gguf`) opens all of them as one: tensors in part
  /// order, the first part's metadata without its `split.*` keys. Throws Error(kInput) with file
  /// offset and tensor or key name, Error(kUnsupported) for versions and tensor types we do not
  /// have.
  static GgufFile open(const std::filesystem::path& path);

  /// In file order; keys are unique.
  const std::vector<std::pair<std::string, GgufValue>>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const;
  const GgufValue* find(std::string_view key) const;
  const std::filesystem::path& path() const { return path_; }
  std::uint64_t alignment() const { return alignment_; }

  // Typed look-ups: nullopt when the key is absent, Error(kInput) when it has another type.
  std::optional<std::uint64_t> get_uint(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string> get_string(std::string_view key) const;
  std::optional<std::vector<std::string>> get_strings(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> get_ints(
      std::string_view key) const;  // array of any integer type
  std::optional<std::vector<double>> get_floats(std::string_view key) const;

  /// general.architecture, e.g. "llama".
  std::string architecture() const;

 private:
  std::filesystem::path path_;
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::map<std::string, std::size_t, std::less<>> key_index_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> tensor_index_;
  std::uint64_t alignment_ = 32;
};

struct GgufTensorPlan {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;  // row-major, as in GgufTensor
};

/// Writes a GGUF v3 file front to back with O(1) memory, as SafetensorsWriter does. A
/// `general.alignment` among the metadata wins over `alignment`; another alignment than 32 adds
/// that key.
class GgufWriter {
 public:
  GgufWriter(const std::filesystem::path& path,
             const std::vector<std::pair<std::string, GgufValue>>& metadata,
             std::vector<GgufTensorPlan> plan, std::uint64_t alignment = 32);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;
  void append(std::span<const std::byte> bytes);
  void append(const GgufTensor& source);
  void append(const ByteProducer& producer);
  void finish();

  std::uint64_t size() const;
  /// XXH3-128 of the bytes so far; after finish(), of the whole file.
  std::string digest() const;
  /// As SafetensorsWriter::set_on_bytes.
  void set_on_bytes(std::function<void(std::uint64_t)> on_bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace espalier
