// The bytes of a file, unpacked on the way when it is gzip or zstd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace espalier {

class TextSource {
 public:
  /// Looks at the first bytes to see whether the file is compressed. Throws Error(kInput) when it
  /// is missing, a folder or unreadable.
  static std::unique_ptr<TextSource> open(const std::filesystem::path& file);
  virtual ~TextSource() = default;

  /// Fills `to` as far as it can; 0 is the end. Throws Error(kInput) for damaged or truncated
  /// compressed data.
  virtual std::size_t read(std::span<char> to) = 0;
  /// Bytes of the file (not of the text) used so far, and its size.
  virtual std::int64_t position() const = 0;
  virtual std::int64_t size() const = 0;
};

}  // namespace espalier
