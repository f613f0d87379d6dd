// Scores in the files that lm-eval writes, so that its users' scripts read ours. Field names and
// forms: lm-eval 0.4.13, lm_eval/result_schema.py and loggers/evaluation_tracker.py.
#pragma once

#include <string>

#include "espalier/eval/choice_task.h"

namespace espalier {

/// One line a document: doc_id, doc, target, arguments, resps, filtered_resps, filter, metrics, the
/// three hashes and the document's metrics; `task` is ours, since one file holds several tasks.
std::string samples_jsonl(const LoadedTask& loaded, const TaskResult& result);

/// What only the caller knows about a run.
struct LmEvalRun {
  std::string model, dtype, device, version;
  double date = 0;  // start, in seconds since 1970
  std::int64_t limit = 0, max_length = 0, batch_tokens = 0;
  bool add_bos = false;
  double seconds = 0;
};

/// The document that `lm_eval --output_path` writes: results with "acc,none" keys, groups,
/// group_subtasks, configs, versions, n-shot, higher_is_better, n-samples, config. An error that
/// cannot be computed is "N/A", as there; so is WikiText's, for which lm-eval gives none.
std::string lm_eval_json(const LoadedTasks& loaded, const TaskScores& scores, const LmEvalRun& run);

}  // namespace espalier
