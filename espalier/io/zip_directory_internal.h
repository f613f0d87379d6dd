// Where the members of a zip file lie: enough for the archives of torch.save, whose members are
// stored as they are and can be used straight from the mapping. libarchive reads such files too,
// but gives no place in the file, only copies. Internal to io.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

struct ZipMember {
  std::string name;
  std::span<const std::byte> data;  // a view of the archive
};

/// True when `bytes` starts as a zip file does.
bool looks_like_zip(std::span<const std::byte> bytes);

/// All members, in the order of their data. Zip64 is understood. Throws Error(kInput) naming
/// `source`, the member and the byte for a damaged directory, members outside the file or over each
/// other, repeated names, compressed or encrypted members, and archives of several parts.
std::vector<ZipMember> read_zip_directory(std::span<const std::byte> bytes,
                                          std::string_view source);

}  // namespace espalier
