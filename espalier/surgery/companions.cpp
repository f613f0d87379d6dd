// Copying of small files beside the weights.
#include "espalier/surgery/companions.h"

#include <string>
#include <system_error>

#include "espalier/base/file.h"

namespace espalier {

void copy_companions(const HfFolder& folder, const std::filesystem::path& destination) {
  for (const std::string& name : folder.companion_files()) {
    std::error_code error;
    std::filesystem::copy_file(folder.path() / name, destination / name,
                               std::filesystem::copy_options::overwrite_existing, error);
    if (error) throw_write_error(destination / name, error.value());
  }
}

std::uint64_t folder_bytes(const std::filesystem::path& folder) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  return bytes;
}

}  // namespace espalier
