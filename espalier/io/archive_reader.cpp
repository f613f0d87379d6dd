// libarchive behind three calls.
#include "espalier/io/archive_reader.h"

#include <algorithm>
#include <array>
#include <cstring>

#include <archive.h>
#include <archive_entry.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"

namespace espalier {
namespace {

struct FreeArchive {
  void operator()(archive* handle) const { archive_read_free(handle); }
};

std::string clean_path(std::string_view path) {
  std::string clean;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/'), path.size());
    const std::string_view part = path.substr(0, end);
    if (!part.empty() && part != ".") {
      if (!clean.empty()) clean += '/';
      clean += part;
    }
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return clean;
}

}  // namespace

struct ArchiveReader::State {
  std::string path;
  std::string current;  // entry being read
  std::unique_ptr<archive, FreeArchive> handle{archive_read_new()};

  [[noreturn]] void fail() const {
    const char* reason = archive_error_string(handle.get());
    const std::string_view where = current;
    throw Error(ErrorKind::kInput, path,
                format("cannot be read as a tar archive{}{}: {}", where.empty() ? "" : " after ",
                       where, reason == nullptr ? "unknown reason" : reason));
  }
};

ArchiveReader::ArchiveReader(const std::filesystem::path& path)
    : state_(std::make_unique<State>()) {
  state_->path = path.string();
  archive* handle = state_->handle.get();
  if (handle == nullptr) throw Error(ErrorKind::kResource, path.string(), "no memory to read it");
  archive_read_support_format_tar(handle);
  archive_read_support_filter_gzip(handle);
  archive_read_support_filter_bzip2(handle);
  archive_read_support_filter_xz(handle);
  archive_read_support_filter_zstd(handle);
  if (archive_read_open_filename(handle, path.c_str(), 1 << 16) != ARCHIVE_OK) state_->fail();
}

ArchiveReader::~ArchiveReader() = default;

bool ArchiveReader::next(ArchiveEntry& entry) {
  archive_entry* found = nullptr;
  const int status = archive_read_next_header(state_->handle.get(), &found);
  if (status == ARCHIVE_EOF) return false;
  if (status != ARCHIVE_OK && status != ARCHIVE_WARN) state_->fail();
  // Names that the current locale cannot hold are still there in UTF-8.
  const char* path = archive_entry_pathname(found);
  if (path == nullptr) path = archive_entry_pathname_utf8(found);
  if (path == nullptr) state_->fail();
  entry.path = state_->current = clean_path(path);
  const auto type = archive_entry_filetype(found);
  entry.kind = type == AE_IFREG   ? ArchiveEntryKind::kFile
               : type == AE_IFDIR ? ArchiveEntryKind::kFolder
                                  : ArchiveEntryKind::kOther;
  entry.size = static_cast<std::uint64_t>(std::max<la_int64_t>(0, archive_entry_size(found)));
  return true;
}

std::string ArchiveReader::read(std::uint64_t max_bytes) {
  std::string content;
  std::array<char, 1 << 15> piece;
  for (;;) {
    const la_ssize_t got = archive_read_data(state_->handle.get(), piece.data(), piece.size());
    if (got < 0) state_->fail();
    if (got == 0) return content;
    content.append(piece.data(), static_cast<std::size_t>(got));
    if (content.size() > max_bytes) {
      throw Error(ErrorKind::kInput, state_->path,
                  format("{} is larger than the limit of {} for this kind of file", state_->current,
                         to_string(Bytes{static_cast<std::int64_t>(max_bytes)})));
    }
  }
}

std::int64_t ArchiveReader::bytes_used() const {
  return archive_filter_bytes(state_->handle.get(), -1);
}

}  // namespace espalier
