// Parquet files through Arrow, an optional part of the build (make ARROW=1).
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "espalier/io/table.h"

namespace espalier {

/// Version of the Arrow library this build uses; "" when it was built without.
std::string arrow_version();

/// Rows of a Parquet file; text, numbers, booleans, lists and structs, read in batches of a few
/// hundred rows. Throws Error(kEnvironment) when built without Arrow, Error(kInput) for a broken
/// file, Error(kUnsupported) naming a column whose type a TableValue cannot hold.
std::unique_ptr<TableReader> open_parquet(const std::filesystem::path& file);

}  // namespace espalier
