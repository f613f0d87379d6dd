// A tar archive read front to end: one entry after the other, nothing written to disk, nothing
// kept. Compression (gzip, xz, zstd, bzip2) is found by the first bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace espalier {

enum class ArchiveEntryKind : std::uint8_t { kFile, kFolder, kOther };

struct ArchiveEntry {
  std::string path;  // with `/`, without `./` and doubled or final slashes
  ArchiveEntryKind kind = ArchiveEntryKind::kFile;
  std::uint64_t size = 0;  // as the archive claims
};

/// Every fault of the archive is an Error(kInput) whose subject is its path: not readable, not a
/// tar archive, damaged or truncated (with the entry that was being read).
class ArchiveReader {
 public:
  explicit ArchiveReader(const std::filesystem::path& path);
  ~ArchiveReader();
  ArchiveReader(const ArchiveReader&) = delete;
  ArchiveReader& operator=(const ArchiveReader&) = delete;

  /// The next entry, whose content may then be read; false at the end.
  bool next(ArchiveEntry& entry);
  /// The whole content of the current entry. Error(kInput) when it is larger than `max_bytes`; the
  /// claimed size is not trusted, memory grows with what is there.
  std::string read(std::uint64_t max_bytes);
  /// Bytes of the archive file used so far, for progress.
  std::int64_t bytes_used() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace espalier
