// Small files as a whole: read with a limit, write atomically. Large files go through io/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace espalier {

/// The whole file as bytes. Throws Error(kInput) when it is missing, a folder, unreadable, or
/// larger than max_bytes.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes = 1ull << 32);

/// Writes `path.tmp`, then renames over `path`: readers see the old file or the new one.
/// Throws Error(kResource) with the system's reason (disk full, read-only file system).
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

/// An Error(kResource) for a failed write, naming errno's text; ENOSPC gets a hint about free
/// space.
[[noreturn]] void throw_write_error(const std::filesystem::path& path, int error_number);

}  // namespace espalier
