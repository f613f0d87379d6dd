// Where each option's value comes from: flag > --set key=value > recipe > default.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/options/options.h"

#include "apps/cli/parse.h"

namespace espalier::cli {

/// Gives the recipe's, then the --set, then the flags' values to the options. Repeated flags of
/// list options add up; of others, the last one wins. `verbs` are the section names a recipe may
/// have. Throws Error(kUsage) for refused values and unknown --set keys. Returns the names of the
/// options that were given by anyone.
std::set<std::string> resolve_options(std::string_view verb, const std::vector<std::string>& verbs,
                                      const OptionList& options, const ParsedArguments& arguments);

/// Throws one Error(kUsage) naming every required option that is missing or empty.
void check_required(std::string_view verb, const OptionList& options);

}  // namespace espalier::cli
