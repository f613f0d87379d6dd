// A file being written front to back: memory and ranges of other files go in, an XXH3 digest of
// everything comes out. Without finish() the file disappears again. Internal to io: the writers of
// each format sit on top.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "espalier/base/hash.h"
#include "espalier/io/mapped_file.h"

namespace espalier {

class FileSink {
 public:
  /// Creates or truncates the file. Throws Error(kResource) when that fails.
  explicit FileSink(const std::filesystem::path& path);
  ~FileSink();
  FileSink(const FileSink&) = delete;
  FileSink& operator=(const FileSink&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void write_zeros(std::uint64_t count);
  /// Copies `size` bytes at `offset` of `source` through one buffer that stays in cache: hashing
  /// there is nearly free, and the mapping of the source is not touched, so its pages never become
  /// resident here.
  void copy(const MappedFile& source, std::uint64_t offset, std::uint64_t size);

  /// Closes the file and keeps it. Throws Error(kResource) on late write errors (quota, network
  /// file systems).
  void finish();

  std::uint64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }
  /// XXH3-128 of all bytes so far.
  std::string digest() const { return hash_.hex(); }
  /// Called with size() at least once per written chunk; may throw to give up.
  void set_on_bytes(std::function<void(std::uint64_t)> on_bytes) {
    on_bytes_ = std::move(on_bytes);
  }

 private:
  void write_all(const std::byte* data, std::size_t count);

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  bool finished_ = false;
  FastHash hash_;
  std::unique_ptr<std::byte[]> buffer_;
  std::function<void(std::uint64_t)> on_bytes_;
};

}  // namespace espalier
