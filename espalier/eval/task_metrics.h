// Means and standard errors of task scores, and how the members of a group make its score.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "espalier/eval/likelihood.h"
#include "espalier/eval/tasks/eval_task.h"

namespace espalier {

struct MetricValue {
  MetricKind metric = MetricKind::kAcc;
  double value = 0;
  std::optional<double> error;  // standard error; nullopt for fewer than two documents
};

/// What the model said about one document.
struct DocAnswer {
  std::vector<Likelihood> answers;  // kChoices, kContexts: one a choice; else one
  double acc = 0, acc_norm = 0;     // of this document: 0 or 1
};

/// Fills acc and acc_norm. The best choice has the highest log-likelihood (acc_norm: divided by
/// the choice's code points), the first of equal ones. kTarget: right when greedy.
void score_doc(const EvalTask& task, const EvalDoc& doc, DocAnswer& answer);

/// Every metric of the task. Means have the error s / sqrt(n) with the sample deviation s;
/// perplexities carry it through the exponential (delta method), over pages as a ratio of sums.
/// Source: lm-eval 0.4.13, lm_eval/api/metrics.py, which bootstraps LAMBADA's perplexity and gives
/// none for WikiText.
std::vector<MetricValue> task_metrics(const EvalTask& task, std::span<const EvalDoc> docs,
                                      std::span<const DocAnswer> answers);

struct MemberScore {
  std::int64_t n = 0;
  std::vector<MetricValue> metrics;
};
/// Mean over the group's tasks weighted by n, with the pooled error; or the plain mean with the
/// error of a mean of independent scores.
std::vector<MetricValue> group_metrics(const EvalGroup& group,
                                       std::span<const MemberScore> members);

}  // namespace espalier
