// Verbs as functions: a verb that chains others (iterative pruning, sweeps) runs them in this
// process, with the words a person would type and the JSON document they would get.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "apps/cli/command.h"

namespace espalier::cli {

/// Runs `verb` with `words` (flags and arguments) after `recipe`, when it is not empty, under the
/// outer verb's device, threads, reporter and stop token. Returns the JSON document of its result;
/// "" when it printed none. Throws what the verb throws, with `while: espalier VERB ...`.
std::string run_nested(const std::string& verb, const std::filesystem::path& recipe,
                       std::vector<std::string> words, const Context& outer);

/// Checks recipe and words as run_nested does before the verb runs: unknown keys, refused values,
/// missing options.
void check_nested(const std::string& verb, const std::filesystem::path& recipe,
                  std::vector<std::string> words, const Context& outer);

}  // namespace espalier::cli
