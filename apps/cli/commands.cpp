// The list of verbs, by hand: static registries are dropped by linkers.
#include "apps/cli/commands.h"

namespace espalier::cli {

const std::vector<Command>& all_commands() {
  static const std::vector<Command> commands{
      inspect_command(),     redundancy_command(),    prune_command(),
      prune_sweep_command(), finetune_command(),      train_classifier_command(),
      search_command(),      eval_command(),          generate_command(),
      convert_command(),     merge_adapter_command(), verify_command(),
      report_command(),      doctor_command(),        completion_command(),
      man_command(),
  };
  return commands;
}

}  // namespace espalier::cli
