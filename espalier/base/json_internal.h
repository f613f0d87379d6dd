// JSON inside our own .cpp files: nlohmann's order-preserving value and a parser with our errors
// and limits. Internal: no nlohmann type appears in a public header.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace espalier {

/// Key order is kept, so a config written back differs only where it was changed.
using Json = nlohmann::ordered_json;

/// Parses UTF-8 JSON. Throws Error(kInput) naming `source`, line and column; nesting deeper than
/// 200 is refused.
Json parse_json(std::string_view text, std::string_view source);

/// Reads and parses a file of at most `max_bytes`.
Json read_json_file(const std::filesystem::path& path, std::uint64_t max_bytes = 1u << 30);

/// Pretty text with 2-space indent and a trailing newline; invalid UTF-8 is replaced, NaN and Inf
/// become null.
std::string dump_json(const Json& value);

}  // namespace espalier
