// The list of verbs, by hand.
#include "apps/cli/commands.h"

namespace espalier::cli {

const std::vector<Command>& all_commands() {
  static const std::vector<Command> commands{};
  return commands;
}

}  // namespace espalier::cli
