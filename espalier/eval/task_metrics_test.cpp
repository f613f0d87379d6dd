// Accuracies with ties, standard errors and groups by hand-computed numbers.
#include "espalier/eval/task_metrics.h"

#include <cmath>

#include <gtest/gtest.h>

#include "espalier/eval/tasks/task_table.h"

namespace espalier {
namespace {

DocAnswer scored(std::string_view task, const EvalDoc& doc, std::vector<Likelihood> answers) {
  DocAnswer answer{std::move(answers), 0, 0};
  score_doc(*find_eval_task(task), doc, answer);
  return answer;
}

TEST(TaskMetrics, TheFirstOfEqualChoicesWinsAndLengthsAreCodePoints) {
  EvalDoc doc;
  doc.choices = {"問題", "abcd"};
  doc.gold = 0;
  const DocAnswer tie = scored("piqa", doc, {{-3, false}, {-3, false}});
  EXPECT_EQ(tie.acc, 1);
  EXPECT_EQ(tie.acc_norm, 0);  // -3/2 against -3/4; by bytes -3/6 would have won
  doc.gold = 1;
  EXPECT_EQ(scored("piqa", doc, {{-3, false}, {-3, false}}).acc, 0);
}

TEST(TaskMetrics, LambadaCountsGreedyWordsAndItsPerplexity) {
  const EvalTask& task = *find_eval_task("lambada_openai");
  std::vector<EvalDoc> docs(3);
  std::vector<DocAnswer> answers;
  for (const auto& [value, greedy] : {std::pair{-1.0, true}, {-2.0, false}, {-6.0, false}})
    answers.push_back(scored("lambada_openai", docs[0], {{value, greedy}}));
  const std::vector<MetricValue> metrics = task_metrics(task, docs, answers);
  ASSERT_EQ(metrics.size(), 2u);
  EXPECT_DOUBLE_EQ(metrics[0].value, std::exp(3.0));
  // Sample deviation of {-1,-2,-6} is sqrt(7).
  EXPECT_NEAR(*metrics[0].error, std::exp(3.0) * std::sqrt(7.0 / 3), 1e-12);
  EXPECT_DOUBLE_EQ(metrics[1].value, 1.0 / 3);
  EXPECT_NEAR(*metrics[1].error, std::sqrt((1.0 / 3) / 3), 1e-12);
}

TEST(TaskMetrics, OneDocumentHasNoError) {
  const EvalTask& task = *find_eval_task("lambada_openai");
  const std::vector<EvalDoc> docs(1);
  const std::vector<DocAnswer> answers{{{{-1, true}}, 1, 0}};
  EXPECT_FALSE(task_metrics(task, docs, answers)[0].error.has_value());
}

TEST(TaskMetrics, WikitextDividesByWordsAndBytesOfAllPages) {
  const EvalTask& task = *find_eval_task("wikitext");
  std::vector<EvalDoc> docs(2);
  docs[0].words = 3, docs[0].bytes = 10, docs[1].words = 5, docs[1].bytes = 30;
  const std::vector<DocAnswer> answers{{{{-4, false}}, 0, 0}, {{{-12, false}}, 0, 0}};
  const std::vector<MetricValue> metrics = task_metrics(task, docs, answers);
  EXPECT_DOUBLE_EQ(metrics[0].value, std::exp(2.0));
  EXPECT_DOUBLE_EQ(metrics[1].value, std::exp(0.4));
  EXPECT_DOUBLE_EQ(metrics[2].value, 0.4 / std::log(2.0));
  // Residuals -4+6 and -12+10.
  EXPECT_NEAR(*metrics[0].error, std::exp(2.0) * std::sqrt(8.0 * 2) / 8, 1e-12);
}

TEST(TaskMetrics, GroupsWeighBySizeOrNot) {
  const std::vector<MemberScore> members{{4, {{MetricKind::kAcc, 0.5, 0.2}}},
                                         {2, {{MetricKind::kAcc, 1.0, 0.1}}}};
  const MetricValue weighted = group_metrics(*find_eval_group("mmlu"), members)[0];
  EXPECT_DOUBLE_EQ(weighted.value, 4.0 / 6);
  // ((4-1) 0.04 4 + (2-1) 0.01 2) / (6-2) / 6
  EXPECT_NEAR(*weighted.error, std::sqrt((0.48 + 0.02) / 4 / 6), 1e-12);
  const MetricValue plain = group_metrics(*find_eval_group("blimp"), members)[0];
  EXPECT_DOUBLE_EQ(plain.value, 0.75);
  EXPECT_NEAR(*plain.error, std::sqrt(0.05) / 2, 1e-12);
}

}  // namespace
}  // namespace espalier
