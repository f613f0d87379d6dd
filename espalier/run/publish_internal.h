// The renames that put a finished folder in place of an old one, and what undoes them after a
// crash. States on disk:
//   OUT                 complete; has run/manifest.json, no run/lock
//   OUT.partial         being written or interrupted; has run/lock. Without run/lock but with a
//   manifest it is an old
//                       OUT whose exchange was killed before the clean-up
//   OUT.old.PID         an old OUT on its way out; if OUT is missing it is put back
#pragma once

#include <cstdint>
#include <filesystem>

namespace espalier::run_internal {

enum class Swap : std::uint8_t {
  kExchange,  // renameat2(RENAME_EXCHANGE), two renames where the system lacks it
  kRenames,   // two renames; a crash between them leaves OUT.old.PID for recover_output
};

std::filesystem::path partial_path(const std::filesystem::path& out);

/// The folder that holds `path`; "." for a bare name.
std::filesystem::path parent_folder(const std::filesystem::path& path);

/// Written by espalier: run/lock or run/manifest.json of ours is inside. Nothing else is ever
/// removed.
bool carries_mark(const std::filesystem::path& folder);

/// Nothing inside, or only run/ with an empty lock (a run that died before it wrote its pid).
bool is_empty_folder(const std::filesystem::path& folder);

/// Removes a marked folder, mark last, so that a killed removal is still known as ours. Missing is
/// fine. keep_mark leaves the folder with run/lock alone. Throws Error(kResource) when something
/// cannot be removed.
void remove_marked_folder(const std::filesystem::path& folder, bool keep_mark = false);

/// Repairs what a killed publish left around `out`. Caller holds the ParentGuard.
void recover_output(const std::filesystem::path& out);

/// Renames OUT.partial to OUT, replacing an old OUT when `replace`. Syncs the parent folder. Throws
/// Error(kUsage) when OUT has appeared meanwhile and may not be replaced, Error(kResource) on
/// system errors; OUT.partial then stays.
void publish_folder(const std::filesystem::path& out, bool replace, Swap swap = Swap::kExchange);

/// fsync of one file or folder; ENOTSUP-like refusals of special file systems are ignored.
void sync_path(const std::filesystem::path& path);

}  // namespace espalier::run_internal
