// Copying of small files beside the weights.
#include "espalier/surgery/companions.h"

#include <string>
#include <system_error>

#include "espalier/base/file.h"

namespace espalier {

std::uint64_t copy_companions(const HfFolder& folder, const std::filesystem::path& destination) {
  std::uint64_t bytes = 0;
  for (const std::string& name : folder.companion_files()) {
    const std::filesystem::path target = destination / name;
    std::error_code error;
    std::filesystem::copy_file(folder.path() / name, target,
                               std::filesystem::copy_options::overwrite_existing, error);
    if (!error) bytes += std::filesystem::file_size(target, error);
    if (error) throw_write_error(target, error.value());
  }
  return bytes;
}

}  // namespace espalier
