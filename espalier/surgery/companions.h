// The files that travel with a model: tokenizer, chat template, generation config, licence.
#pragma once

#include <cstdint>
#include <filesystem>

#include "espalier/io/hf_folder.h"

namespace espalier {

/// Copies the companion files of `folder` into `destination` and returns their bytes. Throws
/// Error(kResource) naming the file.
std::uint64_t copy_companions(const HfFolder& folder, const std::filesystem::path& destination);

}  // namespace espalier
