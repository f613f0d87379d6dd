// safetensors: strict reading of mapped files and streamed writing.
// Format: u64 little-endian header length, JSON header {name: {dtype, shape, data_offsets},
// "__metadata__": {...}}, then the data. Source: the format description of the safetensors project.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/io/byte_stream.h"
#include "espalier/io/mapped_file.h"
#include "espalier/tensor/dtype.h"

namespace espalier {

/// A tensor in some file: name, type, shape and its bytes (a view into the mapped file).
struct StoredTensor {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
  std::shared_ptr<const MappedFile> file;

  std::int64_t numel() const;
  /// Offset of `data` in `file`.
  std::uint64_t file_offset() const;
};

class SafetensorsFile {
 public:
  /// Maps and validates: header length within the file and at most 100 MB, UTF-8 JSON, known
  /// dtypes, shape x dtype == byte range, ranges inside the file that cover the data exactly once
  /// without holes or overlaps, no duplicate names, string-only metadata. Throws Error(kInput) that
  /// names file, tensor and both values.
  static SafetensorsFile open(const std::filesystem::path& path);

  /// In the order of their data offsets.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::shared_ptr<const MappedFile>& file() const { return file_; }

 private:
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
  std::shared_ptr<const MappedFile> file_;
};

/// What a tensor to be written looks like; data follows later, in this order.
struct TensorPlan {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<std::int64_t> shape;
};

/// Writes one safetensors file front to back with O(1) memory: the header is known from the plan,
/// then each tensor's bytes are appended in plan order, from memory or straight from another file,
/// without passing through a mapping.
class SafetensorsWriter {
 public:
  /// Creates the file (parent must exist). Throws Error(kResource) when it cannot be created.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorPlan> plan,
                    std::map<std::string, std::string> metadata = {{"format", "pt"}});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// Appends the next tensor of the plan. Throws Error(kInternal) on a size mismatch,
  /// Error(kResource) on a full disk.
  void append(std::span<const std::byte> bytes);
  void append(const StoredTensor& source);
  /// The same from pieces; memory stays O(one piece).
  void append(const ByteProducer& producer);
  /// Flushes and closes; throws Error(kInternal) when tensors are missing. The destructor without
  /// finish() removes the file.
  void finish();

  /// Bytes written so far, header included.
  std::uint64_t size() const;
  /// XXH3-128 of the bytes so far (FastHash::hex); after finish(), of the whole file. Costs nothing
  /// extra.
  std::string digest() const;
  /// `on_bytes(size())` is called for every written chunk (at most 512 KiB); it may throw to give
  /// up.
  void set_on_bytes(std::function<void(std::uint64_t)> on_bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace espalier
