// The list of verbs, by hand: static registries are dropped by linkers.
#include "apps/cli/commands.h"

namespace espalier::cli {

const std::vector<Command>& all_commands() {
  static const std::vector<Command> commands{
      eval_command(),
      doctor_command(),
      completion_command(),
      man_command(),
  };
  return commands;
}

}  // namespace espalier::cli
