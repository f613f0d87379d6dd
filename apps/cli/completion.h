// Completion scripts for bash, zsh and fish, generated from the option descriptions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "apps/cli/command.h"

namespace espalier::cli {

/// `shell`: bash, zsh or fish.
std::string completion_script(std::string_view shell, const std::vector<Command>& commands);

}  // namespace espalier::cli
