// Training as a step of a longer job (iterative pruning, sweeps): a model folder in, a complete
// model folder out, whatever `finetune` leaves by itself.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "apps/cli/command.h"

namespace espalier::cli {

/// Runs `espalier finetune MODEL --out HEALED` with `recipe` (may be empty) and `words` on top;
/// goes on from HEALED.partial when there is one. An adapter is merged into the model by
/// `merge-adapter`. Returns finetune's JSON document.
std::string heal_model(const std::filesystem::path& model, const std::filesystem::path& healed,
                       const std::filesystem::path& recipe, std::vector<std::string> words,
                       const Context& outer);

}  // namespace espalier::cli
