#include "espalier/eval/task_metrics.h"

#include <cmath>
#include <functional>

#include "espalier/base/error.h"
#include "espalier/eval/tasks/python_text.h"

namespace espalier {
namespace {

MetricValue mean_of(MetricKind metric, std::span<const DocAnswer> answers,
                    const std::function<double(const DocAnswer&)>& value) {
  const auto n = static_cast<double>(answers.size());
  MetricValue result{metric, 0, std::nullopt};
  for (const DocAnswer& answer : answers) result.value += value(answer);
  result.value /= n;
  if (answers.size() < 2) return result;
  double squares = 0;
  for (const DocAnswer& answer : answers) squares += std::pow(value(answer) - result.value, 2);
  result.error = std::sqrt(squares / (n - 1)) / std::sqrt(n);
  return result;
}

/// sum(log-likelihood) / sum(units) over pages, with the error of a ratio estimate.
MetricValue rate_of(MetricKind metric, std::span<const EvalDoc> docs,
                    std::span<const DocAnswer> answers,
                    const std::function<double(const EvalDoc&)>& units) {
  double total = 0, count = 0;
  for (std::size_t i = 0; i < docs.size(); ++i) {
    total += answers[i].answers.front().log_likelihood;
    count += units(docs[i]);
  }
  MetricValue result{metric, total / count, std::nullopt};
  if (docs.size() < 2) return result;
  double squares = 0;
  for (std::size_t i = 0; i < docs.size(); ++i)
    squares +=
        std::pow(answers[i].answers.front().log_likelihood - result.value * units(docs[i]), 2);
  const auto n = static_cast<double>(docs.size());
  result.error = std::sqrt(squares * n / (n - 1)) / count;
  return result;
}

MetricValue exp_of_minus(MetricValue rate) {
  rate.value = std::exp(-rate.value);
  if (rate.error) rate.error = rate.value * *rate.error;
  return rate;
}

MetricValue metric_of(MetricKind metric, std::span<const EvalDoc> docs,
                      std::span<const DocAnswer> answers) {
  const auto words = [](const EvalDoc& doc) { return static_cast<double>(doc.words); };
  const auto bytes = [](const EvalDoc& doc) { return static_cast<double>(doc.bytes); };
  switch (metric) {
    case MetricKind::kAcc:
      return mean_of(metric, answers, [](const DocAnswer& a) { return a.acc; });
    case MetricKind::kAccNorm:
      return mean_of(metric, answers, [](const DocAnswer& a) { return a.acc_norm; });
    case MetricKind::kPerplexity:
      return exp_of_minus(mean_of(
          metric, answers, [](const DocAnswer& a) { return a.answers.front().log_likelihood; }));
    case MetricKind::kWordPerplexity:
      return exp_of_minus(rate_of(metric, docs, answers, words));
    case MetricKind::kBytePerplexity:
      return exp_of_minus(rate_of(metric, docs, answers, bytes));
    case MetricKind::kBitsPerByte: {
      MetricValue rate = rate_of(metric, docs, answers, bytes);
      rate.value /= -std::log(2.0);
      if (rate.error) *rate.error /= std::log(2.0);
      return rate;
    }
  }
  return {};
}

const MetricValue* find(const MemberScore& member, MetricKind metric) {
  for (const MetricValue& value : member.metrics) {
    if (value.metric == metric) return &value;
  }
  return nullptr;
}

}  // namespace

void score_doc(const EvalTask& task, const EvalDoc& doc, DocAnswer& answer) {
  if (task.kind == TaskKind::kPage) return;
  if (task.kind == TaskKind::kTarget) {
    answer.acc = answer.answers.front().greedy ? 1 : 0;
    return;
  }
  std::size_t best = 0, best_norm = 0;
  std::vector<double> normed;
  for (std::size_t i = 0; i < answer.answers.size(); ++i) {
    normed.push_back(answer.answers[i].log_likelihood /
                     static_cast<double>(python_length(doc.choices[i])));
    if (answer.answers[i].log_likelihood > answer.answers[best].log_likelihood) best = i;
    if (normed[i] > normed[best_norm]) best_norm = i;
  }
  answer.acc = static_cast<std::int64_t>(best) == doc.gold ? 1 : 0;
  answer.acc_norm = static_cast<std::int64_t>(best_norm) == doc.gold ? 1 : 0;
}

std::vector<MetricValue> task_metrics(const EvalTask& task, std::span<const EvalDoc> docs,
                                      std::span<const DocAnswer> answers) {
  ESPALIER_ASSERT(!docs.empty() && docs.size() == answers.size());
  std::vector<MetricValue> values;
  for (const MetricKind metric : task.metrics) values.push_back(metric_of(metric, docs, answers));
  return values;
}

std::vector<MetricValue> group_metrics(const EvalGroup& group,
                                       std::span<const MemberScore> members) {
  std::vector<MetricValue> values;
  for (const MetricKind metric : group.metrics) {
    MetricValue result{metric, 0, std::nullopt};
    double weights = 0, variance = 0, count = 0;
    bool has_errors = true;
    for (const MemberScore& member : members) {
      const MetricValue* score = find(member, metric);
      ESPALIER_ASSERT(score != nullptr);
      const auto n = static_cast<double>(member.n);
      const double weight = group.weight_by_size ? n : 1;
      result.value += weight * score->value;
      weights += weight;
      count += n;
      has_errors = has_errors && score->error.has_value();
      const double error = score->error.value_or(0);
      variance += group.weight_by_size ? (n - 1) * error * error * n : error * error;
    }
    result.value /= weights;
    const auto parts = static_cast<double>(members.size());
    if (has_errors) {
      result.error = group.weight_by_size ? std::sqrt(variance / (count - parts) / count)
                                          : std::sqrt(variance) / parts;
    }
    values.push_back(result);
  }
  return values;
}

}  // namespace espalier
