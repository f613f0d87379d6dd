// The program behind main(): finds the verb, parses, runs, prints, and turns failures into exit
// codes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "apps/cli/command.h"

namespace espalier::cli {

/// Runs `espalier ARGUMENTS...` and returns the exit code. Never throws.
int run_program(const std::vector<std::string>& arguments);

/// The verb at the beginning of `arguments` and how many words name it ("graph train": 2).
/// Throws Error(kUsage) with the nearest verb when there is none.
struct FoundCommand {
  const Command* command = nullptr;
  std::size_t words = 0;
};
FoundCommand find_command(const std::vector<Command>& commands,
                          const std::vector<std::string>& arguments);

/// One line that a POSIX shell reads back as these words.
std::string shell_quoted(const std::vector<std::string>& words);

}  // namespace espalier::cli
