// JSON Lines and JSON arrays of objects, plain or compressed, read as a stream of rows.
#pragma once

#include <filesystem>
#include <memory>

#include "espalier/io/table.h"

namespace espalier {

/// The longest row that is read, in bytes of JSON: what is longer is not training data, and a
/// missing newline or bracket must not fill the memory.
inline constexpr std::size_t kMaxRowBytes = std::size_t{64} << 20;

/// One object per line, or one array of objects when the first character is '['. Blank lines and a
/// byte order mark are skipped. Errors name file:line:column. Throws Error(kInput) for a missing,
/// empty or truncated file, a row that is longer than `max_row_bytes` or is no object.
std::unique_ptr<TableReader> open_jsonl(const std::filesystem::path& file,
                                        std::size_t max_row_bytes = kMaxRowBytes);

}  // namespace espalier
