// What an evaluation task is: files, a reader that makes prompts of their rows, and metrics. The
// tasks themselves are listed in task_table.h; what is done with a model in choice_task.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/eval/tasks/task_files.h"
#include "espalier/io/table.h"

namespace espalier {

enum class TaskKind : std::uint8_t {
  kChoices,   // one context, several continuations
  kContexts,  // several contexts, one continuation (WinoGrande)
  kTarget,    // one continuation, right when each of its tokens is the most probable one (LAMBADA)
  kPage,      // a whole text, scored in rolling windows (WikiText)
};

/// One document of a task.
struct EvalDoc {
  TableValue doc;       // fields as in the data set's Hugging Face form, for samples
  std::string context;  // the question, without description and examples; not kContexts
  std::vector<std::string> choices;  // kChoices: answers; kContexts: contexts
  std::string target;     // kContexts, kTarget: the continuation (kTarget with its leading space);
                          // kPage: the text to score
  std::int64_t gold = 0;  // place of the right choice
  std::int64_t words = 0, bytes = 0;  // kPage: of the page as published
  std::string where;                  // file:line
};

enum class MetricKind : std::uint8_t {
  kAcc,
  kAccNorm,
  kPerplexity,
  kWordPerplexity,
  kBytePerplexity,
  kBitsPerByte
};

struct EvalTask {
  std::string name = {}, alias = {};  // lm-eval's; the alias is what a table shows
  TaskKind kind = TaskKind::kChoices;
  std::vector<MetricKind> metrics = {};
  double version = 1.0;          // of lm-eval's task description that this one equals
  std::string subject = {};      // MMLU, CMMLU, BLiMP, XWinograd: which part
  std::string description = {};  // in front of every prompt, once
  FileSearch files = {};         // of the split that is scored
  FileSearch examples = {};      // of the split that few-shot examples come from; no names: none
  bool zero_shot_only = false;   // lm-eval keeps this task at 0 whatever is asked for
  /// Documents of these files in order, at most `limit` (0: all). Throws Error(kInput) with
  /// file:line and field.
  std::vector<EvalDoc> (*read)(const EvalTask& task, std::span<const std::filesystem::path> files,
                               std::int64_t limit) = nullptr;
};

/// Tasks reported together.
struct EvalGroup {
  std::string name, alias;
  std::vector<std::string> members;  // tasks or groups
  std::vector<MetricKind> metrics;
  bool weight_by_size = true;  // false: every member counts the same
  double version = 1.0;
};

/// "acc_norm".
std::string_view metric_name(MetricKind metric);
bool higher_is_better(MetricKind metric);

}  // namespace espalier
