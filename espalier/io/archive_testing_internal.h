// Writes small tar archives, for tests.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <archive.h>
#include <archive_entry.h>

namespace espalier::testing {

struct TarEntry {
  std::string path;  // with a final slash: a folder
  std::string bytes;
};

/// `filter`: ARCHIVE_FILTER_NONE, _GZIP, _XZ, ...
inline void write_tar(const std::filesystem::path& path, const std::vector<TarEntry>& entries,
                      int filter = ARCHIVE_FILTER_NONE) {
  archive* out = archive_write_new();
  archive_write_set_format_pax_restricted(out);
  archive_write_add_filter(out, filter);
  archive_write_open_filename(out, path.c_str());
  for (const TarEntry& file : entries) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, file.path.c_str());
    archive_entry_set_filetype(entry, file.path.back() == '/' ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(file.bytes.size()));
    archive_write_header(out, entry);
    archive_write_data(out, file.bytes.data(), file.bytes.size());
    archive_entry_free(entry);
  }
  archive_write_close(out);
  archive_write_free(out);
}

}  // namespace espalier::testing
