// Recipes: options in a YAML file, with positions in every message. yaml-cpp is seen by recipe.cpp
// only.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/options/options.h"

namespace espalier::cli {

/// True for options that may stand in a recipe: all but those that choose the recipe itself.
bool is_recipe_option(const Option& option);

/// Reads `file` (one YAML mapping, at most 1 MiB) and sets `options` from it. Keys are option
/// names, flat or inside a mapping named after the verb; sections of other verbs in `verbs` are
/// skipped, so one file can serve a whole chain. Scalars are read by the option's type, sequences
/// are for list options, null keeps the default. Names of the options that were set are added to
/// `given`. Throws one Error(kUsage) listing every problem as file:line:column: unknown keys with
/// the nearest known one, duplicates, wrong shapes, refused values. Error(kInput) when the file
/// cannot be read.
void apply_recipe(const std::filesystem::path& file, std::string_view verb,
                  const std::vector<std::string>& verbs, const OptionList& options,
                  std::set<std::string>& given);

/// The current values as a recipe that apply_recipe reads back to the same values.
std::string recipe_text(std::string_view verb, const OptionList& options);

}  // namespace espalier::cli
