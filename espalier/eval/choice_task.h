// Evaluation tasks from local files: documents become prompts, a model scores them, metrics follow.
// Tasks with choices first of all; LAMBADA and WikiText go the same way.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/eval/likelihood.h"
#include "espalier/eval/pair_encoder.h"
#include "espalier/eval/task_metrics.h"
#include "espalier/eval/tasks/eval_task.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier {

struct TaskOptions {
  std::int64_t limit = 0;  // the first N documents; 0: all
  std::int64_t num_fewshot =
      -1;  // examples in front of every prompt; -1: the task's own, which is 0
};

/// A task with its documents, before any model is loaded.
struct LoadedTask {
  const EvalTask* task = nullptr;
  std::vector<EvalDoc> docs;   // those that are scored
  std::int64_t available = 0;  // documents in the files
  std::int64_t num_fewshot = 0;
  std::string prefix;  // description and examples
  std::vector<std::filesystem::path> files;
};

/// Tasks and groups asked for by name, loaded from the folder's files.
struct LoadedTasks {
  std::vector<LoadedTask> tasks;         // each once, in the order asked for
  std::vector<const EvalGroup*> groups;  // outer ones first
  std::vector<std::string> missing;      // members of groups that have no files here
};

/// Reads everything, so that bad input fails before a model is loaded. Examples are the first K
/// documents of their split. A group takes the members whose files are there, at least one, and
/// warns about the others. Throws Error(kUnsupported) for an unknown name, Error(kUsage) for an
/// example count that the task or its files cannot give, Error(kInput) for a missing file (naming
/// what was looked for) or a bad row (file:line, field).
LoadedTasks load_tasks(std::span<const std::string> names, const std::filesystem::path& folder,
                       const TaskOptions& options, Reporter& reporter);

/// The pairs of text that score a document; kPage has one pair with an empty context.
struct TextPair {
  std::string context, continuation;
};
std::vector<TextPair> text_pairs(const LoadedTask& loaded, const EvalDoc& doc);

struct TaskResult {
  const EvalTask* task = nullptr;
  std::vector<DocAnswer> docs;
  std::vector<MetricValue> metrics;
};

struct GroupResult {
  const EvalGroup* group = nullptr;
  std::vector<std::string> members;  // direct ones that have a score
  std::int64_t n = 0;
  std::vector<MetricValue> metrics;
};

struct TaskScores {
  std::vector<TaskResult> tasks;  // parallel to LoadedTasks::tasks
  std::vector<GroupResult> groups;
  LikelihoodStats stats;
};

/// Tokens that scoring will read when no prefix is shared: for --dry-run.
std::int64_t count_tokens(const LoadedTasks& loaded, const PairEncoder& encoder);

/// Scores every task. Throws as log_likelihoods does; after a stop request Interrupted.
TaskScores score_tasks(const Decoder& model, const LoadedTasks& loaded, const PairEncoder& encoder,
                       const LikelihoodOptions& options, Reporter& reporter,
                       const StopToken& stop = never_stop());

}  // namespace espalier
