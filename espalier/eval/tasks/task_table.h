// The tasks of `espalier eval` and the groups they are reported in, by lm-eval's names.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/eval/tasks/eval_task.h"

namespace espalier {

/// Every task, MMLU's subjects and BLiMP's paradigms among them.
const std::vector<EvalTask>& eval_tasks();
const std::vector<EvalGroup>& eval_groups();

const EvalTask* find_eval_task(std::string_view name);
const EvalGroup* find_eval_group(std::string_view name);

/// Names for a message: groups, and tasks that belong to none.
std::vector<std::string> eval_task_headlines();
/// Every name that may be asked for.
std::vector<std::string> eval_task_names();

/// Tasks below a group, in order, through groups inside it.
std::vector<const EvalTask*> tasks_of(const EvalGroup& group);
/// The group and the groups inside it, the group first.
std::vector<const EvalGroup*> groups_of(const EvalGroup& group);

}  // namespace espalier
