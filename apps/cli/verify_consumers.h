// Which programs can load a model, as far as the files say. Facts are about the formats; nothing is
// executed.
#pragma once

#include <string>
#include <vector>

#include "espalier/io/gguf.h"
#include "espalier/io/hf_folder.h"

#include "apps/cli/verify_model.h"

namespace espalier::cli {

std::vector<Consumer> hf_consumers(const HfFolder& folder, const Verification& found);
std::vector<Consumer> gguf_consumers(const GgufFile& file, const Verification& found);
/// Every consumer refuses: for files that cannot be opened.
std::vector<Consumer> no_consumers(const Verification& found);

}  // namespace espalier::cli
