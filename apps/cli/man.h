// Man pages in roff (man macros), generated from the option descriptions.
#pragma once

#include <string>
#include <vector>

#include "apps/cli/command.h"

namespace espalier::cli {

/// espalier(1): what the program is, its verbs, exit codes, files, environment.
std::string program_man_page(const std::vector<Command>& commands);

/// espalier-VERB(1).
std::string verb_man_page(const Command& command);

}  // namespace espalier::cli
