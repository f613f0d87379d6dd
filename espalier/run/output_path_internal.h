// Checks of an --out path that a folder and a single file share.
#pragma once

#include <filesystem>
#include <vector>

#include "espalier/run/run_folder.h"

namespace espalier::run_internal {

/// The path as typed, without trailing slashes, symbolic links at its end resolved. Error(kUsage)
/// for "", "/", ".",
/// "..", and names that end in ".partial".
std::filesystem::path checked_out(const std::filesystem::path& typed);

/// Makes missing parents (mkdir -p) and returns those that were made, outermost first.
/// Error(kUsage) when a parent is a file, Error(kResource) when the place cannot be written.
std::vector<std::filesystem::path> make_parents(const std::filesystem::path& out);

/// Removes made parents that are empty again. Never throws.
void remove_empty_parents(const std::vector<std::filesystem::path>& made) noexcept;

bool may_overwrite(OutputPolicy policy);
bool may_resume(OutputPolicy policy);

/// Error(kUsage): OUT is there already; the hint depends on the policy.
[[noreturn]] void throw_exists(const std::filesystem::path& out, OutputPolicy policy);

}  // namespace espalier::run_internal
