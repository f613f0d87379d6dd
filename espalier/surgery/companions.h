// The files that travel with a model: tokenizer, chat template, generation config, licence.
#pragma once

#include <cstdint>
#include <filesystem>

#include "espalier/io/hf_folder.h"

namespace espalier {

/// Copies the companion files of `folder` into `destination`. Throws Error(kResource) naming the file.
void copy_companions(const HfFolder& folder, const std::filesystem::path& destination);

/// Sum of the sizes of all regular files under `folder`.
std::uint64_t folder_bytes(const std::filesystem::path& folder);

}  // namespace espalier
