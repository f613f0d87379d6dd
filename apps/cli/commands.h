// One function per verb; each is defined in commands/<verb>.cpp.
#pragma once

#include "apps/cli/command.h"

namespace espalier::cli {

Command inspect_command();
Command redundancy_command();
Command prune_command();
Command prune_sweep_command();
Command finetune_command();
Command train_classifier_command();
Command search_command();
Command eval_command();
Command generate_command();
Command convert_command();
Command merge_adapter_command();
Command verify_command();
Command report_command();
Command doctor_command();

// Hidden: defined in completion.cpp and man.cpp.
Command completion_command();
Command man_command();

}  // namespace espalier::cli
