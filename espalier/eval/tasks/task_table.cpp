// One entry a task; families with many members are made from a table of their names.
// Prompts, metrics and versions: lm-eval 0.4.13, lm_eval/tasks/<family>/*.yaml.
#include "espalier/eval/tasks/task_table.h"

#include <algorithm>
#include <array>
#include <utility>

#include "espalier/base/format.h"
#include "espalier/eval/tasks/task_readers.h"

namespace espalier {
namespace {

using Names = std::vector<std::string>;
const std::vector<MetricKind> kAccBoth{MetricKind::kAcc, MetricKind::kAccNorm};
const std::vector<MetricKind> kAccOnly{MetricKind::kAcc};

struct Part {
  const char *name, *label;
};
constexpr Part kMmluSubjects[] = {
#include "espalier/eval/tasks/mmlu_subjects_table.inc"
};
constexpr Part kCmmluSubjects[] = {
#include "espalier/eval/tasks/cmmlu_subjects_table.inc"
};
constexpr const char* kBlimpParadigms[] = {
#include "espalier/eval/tasks/blimp_paradigms_table.inc"
};
constexpr const char* kXwinogradLanguages[] = {"en", "fr", "jp", "pt", "ru", "zh"};
constexpr Part kMmluCategories[] = {{"stem", "stem"},
                                    {"other", "other"},
                                    {"social_sciences", "social sciences"},
                                    {"humanities", "humanities"}};

EvalTask piqa() {
  EvalTask t{.name = "piqa", .alias = "piqa", .metrics = kAccBoth, .read = task_readers::piqa};
  const Names folders{"piqa", "PIQA", "physicaliqa", ""};
  t.files = {folders,
             {"piqa_valid.jsonl", "valid.jsonl", "validation.jsonl", "validation-*.parquet",
              "data/validation-*.parquet", "plain_text/validation-*.parquet"}};
  t.examples = {folders,
                {"piqa_train.jsonl", "train.jsonl", "train-*.parquet", "data/train-*.parquet",
                 "plain_text/train-*.parquet"}};
  return t;
}

EvalTask hellaswag() {
  EvalTask t{.name = "hellaswag",
             .alias = "hellaswag",
             .metrics = kAccBoth,
             .read = task_readers::hellaswag};
  const Names folders{"hellaswag", "HellaSwag", "hellaswag/data", ""};
  t.files = {folders,
             {"hellaswag_val.jsonl", "validation.jsonl", "validation-*.parquet",
              "data/validation-*.parquet"}};
  t.examples = {
      folders, {"hellaswag_train.jsonl", "train.jsonl", "train-*.parquet", "data/train-*.parquet"}};
  return t;
}

EvalTask openbookqa() {
  EvalTask t{.name = "openbookqa",
             .alias = "openbookqa",
             .metrics = kAccBoth,
             .read = task_readers::openbookqa};
  const Names folders{"openbookqa", "OpenBookQA", "OpenBookQA-V1-Sep2018", ""};
  t.files = {
      folders,
      {"openbookqa_test.jsonl", "Data/Main/test.jsonl", "test.jsonl", "main/test-*.parquet"}};
  t.examples = {
      folders,
      {"openbookqa_train.jsonl", "Data/Main/train.jsonl", "train.jsonl", "main/train-*.parquet"}};
  return t;
}

FileSearch arc_files(const std::string& task, const std::string& set, const std::string& split,
                     const std::string& split_title) {
  const std::string file = set + "-" + split_title;
  return {{"arc", "ARC", "ai2_arc", "ARC-V1-Feb2018-2", "ARC-V1-Feb2018", ""},
          {set + "/" + file + ".jsonl", file + ".jsonl", set + "/" + file + ".csv", file + ".csv",
           set + "/" + split + "-*.parquet", set + "/" + split + ".jsonl",
           task + "/" + split + ".jsonl", task + "_" + split + ".jsonl"}};
}

EvalTask arc(const std::string& name, const std::string& set) {
  EvalTask t{.name = name, .alias = name, .metrics = kAccBoth, .read = task_readers::arc};
  t.files = arc_files(name, set, "test", "Test");
  t.examples = arc_files(name, set, "train", "Train");
  return t;
}

EvalTask winogrande() {
  EvalTask t{.name = "winogrande",
             .alias = "winogrande",
             .kind = TaskKind::kContexts,
             .metrics = kAccOnly,
             .read = task_readers::winogrande};
  const Names folders{"winogrande", "winogrande_1.1", "WinoGrande", ""};
  t.files = {folders,
             {"winogrande_dev.jsonl", "dev.jsonl", "validation.jsonl",
              "winogrande_xl/validation-*.parquet", "validation-*.parquet"}};
  t.examples = {folders,
                {"winogrande_train_xl.jsonl", "train_xl.jsonl", "train.jsonl",
                 "winogrande_xl/train-*.parquet", "train-*.parquet"}};
  return t;
}

EvalTask lambada(const std::string& name) {
  EvalTask t{.name = name,
             .alias = name,
             .kind = TaskKind::kTarget,
             .metrics = {MetricKind::kPerplexity, MetricKind::kAcc},
             .read = task_readers::lambada};
  const Names folders{"lambada_openai", "lambada", "LAMBADA", ""};
  if (name == "lambada_standard") {
    t.files = {folders,
               {"lambada_test_plain_text.txt", "lambada_standard_test.jsonl",
                "plain_text/test-*.parquet"}};
    t.examples = {folders,
                  {"lambada_development_plain_text.txt", "lambada_standard_validation.jsonl",
                   "plain_text/validation-*.parquet"}};
  } else {
    t.files = {folders,
               {"lambada_openai_test.jsonl", "lambada_test.jsonl", "lambada_test_en.jsonl",
                "data/lambada_test_en.jsonl", "test.jsonl", "test-*.parquet"}};
  }
  return t;
}

EvalTask wikitext() {
  EvalTask t{.name = "wikitext",
             .alias = "wikitext",
             .kind = TaskKind::kPage,
             .metrics = {MetricKind::kWordPerplexity, MetricKind::kBytePerplexity,
                         MetricKind::kBitsPerByte},
             .version = 2.0,
             .zero_shot_only = true,
             .read = task_readers::wikitext};
  t.files = {{"wikitext", "wikitext-2-raw", "wikitext-2", "wikitext-2-raw-v1", ""},
             {"wiki.test.raw", "wiki.test.tokens", "wikitext2_test.txt",
              "wikitext_document_level_test.jsonl", "wikitext-2-raw-v1/test-*.parquet"}};
  return t;
}

std::string with_spaces(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

EvalTask mmlu(const Part& part) {
  const std::string subject = part.name;
  // lm-eval's aliases keep the underscores of all subjects with more than one word.
  EvalTask t{.name = "mmlu_" + subject,
             .alias = subject,
             .metrics = kAccOnly,
             .subject = subject,
             .description =
                 format("The following are multiple choice questions (with answers) about {}.\n\n",
                        with_spaces(subject)),
             .read = task_readers::mmlu};
  const Names folders{"mmlu", "mmlu/data", "MMLU", "MMLU/data", "data", ""};
  t.files = {folders,
             {"test/" + subject + "_test.csv", subject + "_test.csv", subject + "/test-*.parquet",
              subject + "/test.jsonl"}};
  t.examples = {folders,
                {"dev/" + subject + "_dev.csv", subject + "_dev.csv", subject + "/dev-*.parquet",
                 subject + "/dev.jsonl"}};
  return t;
}

EvalTask cmmlu(const Part& part) {
  const std::string subject = part.name;
  EvalTask t{
      .name = "cmmlu_" + subject,
      .alias = "cmmlu_" + subject,
      .metrics = kAccBoth,
      .subject = subject,
      .description = format("以下是关于{}的单项选择题，请直接给出正确答案的选项。\n\n", part.label),
      .read = task_readers::cmmlu};
  const Names folders{"cmmlu", "cmmlu/data", "cmmlu_v1_0_1", "CMMLU", "CMMLU/data", "data", ""};
  t.files = {folders,
             {"test/" + subject + ".csv", subject + "/test-*.parquet", subject + "/test.jsonl"}};
  t.examples = {folders,
                {"dev/" + subject + ".csv", subject + "/dev-*.parquet", subject + "/dev.jsonl"}};
  return t;
}

EvalTask blimp(const std::string& paradigm) {
  EvalTask t{.name = "blimp_" + paradigm,
             .alias = "blimp_" + paradigm,
             .metrics = kAccOnly,
             .subject = paradigm,
             .zero_shot_only = true,
             .read = task_readers::blimp};
  t.files = {{"blimp", "blimp/data", "BLiMP", "BLiMP/data", "data", ""},
             {paradigm + ".jsonl", paradigm + "/train-*.parquet"}};
  return t;
}

EvalTask xwinograd(const std::string& language) {
  EvalTask t{.name = "xwinograd_" + language,
             .alias = "xwinograd_" + language,
             .kind = TaskKind::kContexts,
             .metrics = kAccOnly,
             .subject = language,
             .read = task_readers::xwinograd};
  t.files = {{"xwinograd", "crosslingual_winograd", ""},
             {language + ".jsonl", "test/" + language + ".jsonl", "xwinograd.tsv", "dataset.tsv"}};
  return t;
}

std::vector<EvalTask> make_tasks() {
  std::vector<EvalTask> tasks{piqa(),
                              hellaswag(),
                              openbookqa(),
                              arc("arc_easy", "ARC-Easy"),
                              arc("arc_challenge", "ARC-Challenge"),
                              winogrande(),
                              lambada("lambada_openai"),
                              lambada("lambada_standard"),
                              lambada("lambada"),
                              wikitext()};
  for (const Part& subject : kMmluSubjects) tasks.push_back(mmlu(subject));
  for (const Part& subject : kCmmluSubjects) tasks.push_back(cmmlu(subject));
  for (const char* paradigm : kBlimpParadigms) tasks.push_back(blimp(paradigm));
  for (const char* language : kXwinogradLanguages) tasks.push_back(xwinograd(language));
  return tasks;
}

std::vector<EvalGroup> make_groups() {
  std::vector<EvalGroup> groups{{"mmlu", "mmlu", {}, kAccOnly, true, 2.0}};
  for (const Part& category : kMmluCategories) {
    const std::string name = std::string("mmlu_") + category.name;
    groups.front().members.push_back(name);
    EvalGroup group{name, category.label, {}, kAccOnly, true, 2.0};
    for (const Part& subject : kMmluSubjects) {
      if (std::string_view(subject.label) == category.name)
        group.members.push_back(std::string("mmlu_") + subject.name);
    }
    groups.push_back(std::move(group));
  }
  EvalGroup cmmlu{"cmmlu", "cmmlu", {}, kAccBoth, true, 1.0};
  for (const Part& subject : kCmmluSubjects)
    cmmlu.members.push_back(std::string("cmmlu_") + subject.name);
  groups.push_back(std::move(cmmlu));
  EvalGroup blimp{"blimp", "blimp", {}, kAccOnly, false, 2.0};
  for (const char* paradigm : kBlimpParadigms)
    blimp.members.push_back(std::string("blimp_") + paradigm);
  groups.push_back(std::move(blimp));
  EvalGroup xwinograd{"xwinograd", "xwinograd", {}, kAccOnly, true, 1.0};
  for (const char* language : kXwinogradLanguages)
    xwinograd.members.push_back(std::string("xwinograd_") + language);
  groups.push_back(std::move(xwinograd));
  return groups;
}

}  // namespace

std::string_view metric_name(MetricKind metric) {
  constexpr std::array<std::string_view, 6> kNames{
      "acc", "acc_norm", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"};
  return kNames[static_cast<std::size_t>(metric)];
}

bool higher_is_better(MetricKind metric) {
  return metric == MetricKind::kAcc || metric == MetricKind::kAccNorm;
}

const std::vector<EvalTask>& eval_tasks() {
  static const std::vector<EvalTask> tasks = make_tasks();
  return tasks;
}

const std::vector<EvalGroup>& eval_groups() {
  static const std::vector<EvalGroup> groups = make_groups();
  return groups;
}

const EvalTask* find_eval_task(std::string_view name) {
  for (const EvalTask& task : eval_tasks()) {
    if (task.name == name) return &task;
  }
  return nullptr;
}

const EvalGroup* find_eval_group(std::string_view name) {
  for (const EvalGroup& group : eval_groups()) {
    if (group.name == name) return &group;
  }
  return nullptr;
}

std::vector<const EvalTask*> tasks_of(const EvalGroup& group) {
  std::vector<const EvalTask*> tasks;
  for (const std::string& member : group.members) {
    if (const EvalTask* task = find_eval_task(member)) {
      tasks.push_back(task);
    } else {
      const std::vector<const EvalTask*> inner = tasks_of(*find_eval_group(member));
      tasks.insert(tasks.end(), inner.begin(), inner.end());
    }
  }
  return tasks;
}

std::vector<const EvalGroup*> groups_of(const EvalGroup& group) {
  std::vector<const EvalGroup*> groups{&group};
  for (const std::string& member : group.members) {
    if (const EvalGroup* inner = find_eval_group(member)) {
      const std::vector<const EvalGroup*> below = groups_of(*inner);
      groups.insert(groups.end(), below.begin(), below.end());
    }
  }
  return groups;
}

std::vector<std::string> eval_task_headlines() {
  std::vector<std::string> names;
  for (const EvalTask& task : eval_tasks()) {
    if (task.subject.empty()) names.push_back(task.name);
  }
  for (const EvalGroup& group : eval_groups()) names.push_back(group.name);
  return names;
}

std::vector<std::string> eval_task_names() {
  std::vector<std::string> names;
  for (const EvalGroup& group : eval_groups()) names.push_back(group.name);
  for (const EvalTask& task : eval_tasks()) names.push_back(task.name);
  return names;
}

}  // namespace espalier
