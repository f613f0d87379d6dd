// A file mapped read-only into memory, shared by every view of it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace espalier {

class MappedFile {
 public:
  /// Maps the whole file. Throws Error(kInput) when it is missing, a folder or unreadable. An empty
  /// file maps to an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::uint64_t size() const { return size_; }
  /// Open descriptor of the file, for copy_file_range; owned by this object.
  int descriptor() const { return descriptor_; }

  /// Tells the kernel that these bytes will be read soon, or that their pages may leave this
  /// process's resident set now (they stay in the page cache). Both are hints and never fail.
  void will_need(std::span<const std::byte> part) const;
  void release(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
  int descriptor_ = -1;
};

}  // namespace espalier
