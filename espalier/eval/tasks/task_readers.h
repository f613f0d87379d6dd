// One reader a family of tasks; each is defined in the file that bears its name and has the
// signature of EvalTask::read.
#pragma once

#include "espalier/eval/tasks/eval_task.h"

namespace espalier::task_readers {

using Files = std::span<const std::filesystem::path>;
using Docs = std::vector<EvalDoc>;

Docs piqa(const EvalTask& task, Files files, std::int64_t limit);
Docs hellaswag(const EvalTask& task, Files files, std::int64_t limit);
Docs openbookqa(const EvalTask& task, Files files, std::int64_t limit);
Docs arc(const EvalTask& task, Files files, std::int64_t limit);
Docs winogrande(const EvalTask& task, Files files, std::int64_t limit);
Docs xwinograd(const EvalTask& task, Files files, std::int64_t limit);
Docs mmlu(const EvalTask& task, Files files, std::int64_t limit);
Docs cmmlu(const EvalTask& task, Files files, std::int64_t limit);
Docs lambada(const EvalTask& task, Files files, std::int64_t limit);
Docs blimp(const EvalTask& task, Files files, std::int64_t limit);
Docs wikitext(const EvalTask& task, Files files, std::int64_t limit);

}  // namespace espalier::task_readers
