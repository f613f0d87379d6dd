// Every reader on every layout it knows: prompts, answers and labels as lm-eval makes them; what is
// wrong in a file is said with file, line and field.
#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/eval/tasks/task_table.h"

namespace espalier {
namespace {

using Texts = std::vector<std::string>;

class ReadersTest : public testing::Test {
 protected:
  std::vector<EvalDoc> read(std::string_view task, std::int64_t limit = 0) {
    const EvalTask* found = find_eval_task(task);
    if (found == nullptr) throw std::runtime_error("no such task");
    const auto files = find_task_files(folder_.path(), found->files);
    if (files.empty()) throw std::runtime_error("no file found");
    return found->read(*found, files, limit);
  }
  /// "valid.jsonl:2: message" of the error that reading throws.
  std::string problem(std::string_view task) {
    try {
      read(task);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      const std::string subject = error.subject();
      return subject.substr(subject.rfind('/') + 1) + ": " + error.message();
    }
    return "nothing was thrown";
  }
  TempFolder folder_;
};

TEST_F(ReadersTest, PiqaTakesItsLabelsFromTheFileBeside) {
  folder_.write("piqa/valid.jsonl", R"({"goal": "g1", "sol1": "a", "sol2": "b"}
{"goal": "g2", "sol1": "c", "sol2": "d"}
)");
  folder_.write("piqa/valid-labels.lst", "1\n0\n");
  const std::vector<EvalDoc> docs = read("piqa");
  ASSERT_EQ(docs.size(), 2u);
  EXPECT_EQ(docs[0].context, "Question: g1\nAnswer:");
  EXPECT_EQ(docs[0].choices, (Texts{"a", "b"}));
  EXPECT_EQ(docs[0].gold, 1);
  EXPECT_EQ(docs[1].gold, 0);
  EXPECT_TRUE(docs[1].where.ends_with("valid.jsonl:2"));
}

TEST_F(ReadersTest, PiqaNamesAndLabelsOfOtherLayouts) {
  folder_.write("piqa_valid.jsonl", R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 1})");
  EXPECT_EQ(read("piqa")[0].gold, 1);
}

TEST_F(ReadersTest, PiqaErrors) {
  folder_.write("valid.jsonl",
                "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\"}\n{\"goal\": 3}");
  EXPECT_EQ(
      problem("piqa"),
      "valid.jsonl: has no labels: neither a field 'label' nor a file *-labels.lst beside it");
  folder_.write("valid-labels.lst", "1\n0\n");
  EXPECT_EQ(problem("piqa"), "valid.jsonl:2: field 'goal' is a number, expected text");
  folder_.write("valid-labels.lst", "2\n0\n");
  EXPECT_EQ(problem("piqa"), "valid-labels.lst:1: label \"2\" is neither 0 nor 1");
  folder_.write("valid.jsonl", R"({"goal": "g", "sol1": "a", "sol2": "b"})");
  folder_.write("valid-labels.lst", "1\n0\n");
  EXPECT_EQ(problem("piqa"), "valid-labels.lst: holds 2 labels for 1 rows");
  folder_.write("valid-labels.lst", "");
  EXPECT_EQ(problem("piqa"), "valid-labels.lst: ends after 0 labels, but the rows go on");
  folder_.write("valid.jsonl", R"({"goal": "g", "sol1": "a", "label": 0})");
  EXPECT_EQ(problem("piqa"), "valid.jsonl:1: field 'sol2' is missing");
  folder_.write("valid.jsonl", R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 2})");
  EXPECT_EQ(problem("piqa"), "valid.jsonl:1: field 'label' is 2, but the choices are 0 to 1");
}

TEST_F(ReadersTest, HellaswagIsCleanedInLmEvalsOrder) {
  folder_.write(
      "hellaswag_val.jsonl",
      R"({"activity_label": " Baking", "ctx_a": "A  man [header] cooks. [title] Then",)"
      R"( "ctx_b": "the CAKE", "endings": ["is [substeps] eaten", "x", "y   z", "[a\nb]"],)"
      R"( "label": "2"})");
  const EvalDoc doc = read("hellaswag")[0];
  // "A  man  cooks" loses one of each two spaces; a bracket over a line end stays.
  EXPECT_EQ(doc.context, "Baking: A man cooks.. Then The cake");
  EXPECT_EQ(doc.choices, (Texts{"is eaten", "x", "y  z", "[a\nb]"}));
  EXPECT_EQ(doc.gold, 2);
  folder_.write(
      "hellaswag_val.jsonl",
      R"({"activity_label": "B", "ctx_a": "", "ctx_b": "", "endings": ["a", 1], "label": 0})");
  EXPECT_EQ(problem("hellaswag"),
            "hellaswag_val.jsonl:1: field 'endings' holds a number as item 1, expected text");
  folder_.write(
      "hellaswag_val.jsonl",
      R"({"activity_label": "B", "ctx_a": "", "ctx_b": "", "endings": ["a", "b"], "label": ""})");
  EXPECT_EQ(problem("hellaswag"),
            "hellaswag_val.jsonl:1: field 'label' is \"\", expected a whole number");
}

constexpr std::string_view kArcRow =
    R"({"id": "q", "question": {"stem": "Why?", "choices": [{"text": "no", "label": "1"},)"
    R"( {"text": "yes", "label": "2"}, {"text": "so", "label": "3"}]}, "answerKey": "2"})";

TEST_F(ReadersTest, ArcAsPublishedAsCsvAndFromTheHub) {
  folder_.write("ARC-Easy/ARC-Easy-Test.jsonl", kArcRow);
  const EvalDoc doc = read("arc_easy")[0];
  EXPECT_EQ(doc.context, "Question: Why?\nAnswer:");
  EXPECT_EQ(doc.choices, (Texts{"no", "yes", "so"}));
  EXPECT_EQ(doc.gold, 1);

  folder_.write("ARC-Challenge-Test.csv",
                "questionID,originalQuestionID,AnswerKey,question\n"
                "Q1,1,C,\"Which, of (A) these? (A) one thing (B) two (C) three, four (D) five\"\n");
  const EvalDoc csv = read("arc_challenge")[0];
  EXPECT_EQ(csv.context, "Question: Which, of (A) these?\nAnswer:");
  EXPECT_EQ(csv.choices, (Texts{"one thing", "two", "three, four", "five"}));
  EXPECT_EQ(csv.gold, 2);

  folder_.write("arc/ARC-Challenge/test.jsonl",
                R"({"id": "q", "question": "Hub?", "choices": {"text": ["a", "b"],)"
                R"( "label": ["A", "B"]}, "answerKey": "A"})");
  EXPECT_EQ(read("arc_challenge")[0].context, "Question: Hub?\nAnswer:");
}

TEST_F(ReadersTest, ArcErrors) {
  std::string row(kArcRow);
  row.replace(row.find("\"answerKey\": \"2\""), 16, "\"answerKey\": \"E\"");
  folder_.write("ARC-Easy-Test.jsonl", row);
  EXPECT_EQ(problem("arc_easy"),
            "ARC-Easy-Test.jsonl:1: field 'answerKey' is \"E\", but the choices are 1, 2, 3");
  folder_.write("ARC-Easy-Test.jsonl", R"({"question": {"stem": "s"}, "answerKey": "A"})");
  EXPECT_EQ(problem("arc_easy"), "ARC-Easy-Test.jsonl:1: field 'choices' is missing");
  folder_.write("ARC-Easy-Test.jsonl", R"({"question": [], "answerKey": "A"})");
  EXPECT_EQ(problem("arc_easy"), "ARC-Easy-Test.jsonl:1: field 'stem' is missing");
}

TEST_F(ReadersTest, OpenbookqaHasTheBareStem) {
  folder_.write("Data/Main/test.jsonl", kArcRow);
  EXPECT_EQ(read("openbookqa")[0].context, "Why?");
  EXPECT_EQ(read("openbookqa")[0].gold, 1);
  folder_.write("openbookqa/test.jsonl",
                R"({"question_stem": "Hub", "choices": {"text": ["a", "b"], "label": ["A", "B"]},)"
                R"( "answerKey": " B"})");
  EXPECT_EQ(read("openbookqa")[0].gold, 1);
}

TEST_F(ReadersTest, WinograndePutsBothOptionsIntoTheGap) {
  folder_.write("dev.jsonl", R"({"sentence": "Ann met Eve, so _ was glad.", "option1": "Ann",)"
                             R"( "option2": "Eve", "answer": "2"})");
  const EvalDoc doc = read("winogrande")[0];
  EXPECT_EQ(doc.choices, (Texts{"Ann met Eve, so Ann", "Ann met Eve, so Eve"}));
  EXPECT_EQ(doc.target, "was glad.");
  EXPECT_EQ(doc.gold, 1);
  folder_.write("dev.jsonl",
                R"({"sentence": "a _ b", "option1": "x", "option2": "y", "answer": ""})");
  EXPECT_EQ(problem("winogrande"), "dev.jsonl:1: field 'answer' is \"\", expected a whole number");
  folder_.write("dev.jsonl",
                R"({"sentence": "ab", "option1": "x", "option2": "y", "answer": "1"})");
  EXPECT_EQ(problem("winogrande"), "dev.jsonl:1: field 'sentence' has no gap \"_\"");
}

constexpr std::string_view kXwinograd =
    "fr\toriginal\t?\tElle rit.\t[\"Elle\", \"rit\", \".\"]\t[\"Elle\", [0, 1], [\"Elle\"]]\t"
    "[[\"A\", [0, 1], [\"A\"], true], [\"B\", [0, 1], [\"B\"], false]]\n"
    "en\toriginal\t?\tHe said \"he\" won.\t[\"He\", \"said\", \"``\", \"he\", \"''\", \"won\", "
    "\".\"]\t[\"he\", [3, 4], [\"he\"]]\t"
    "[[\"Jim\", [0, 1], [\"Jim\"], false], [\"Tom\", [0, 1], [\"Tom\"], true]]\n";

TEST_F(ReadersTest, XwinogradMakesTheGapFromThePronounsTokens) {
  folder_.write("xwinograd.tsv", kXwinograd);
  const std::vector<EvalDoc> docs = read("xwinograd_en");
  ASSERT_EQ(docs.size(), 1u);
  EXPECT_EQ(docs[0].choices, (Texts{"He said \"Jim", "He said \"Tom"}));
  EXPECT_EQ(docs[0].target, "\" won.");
  EXPECT_EQ(docs[0].gold, 1);
  EXPECT_TRUE(docs[0].where.ends_with("xwinograd.tsv:2"));
  EXPECT_EQ(*docs[0].doc.find("sentence")->text(), "He said \"_\" won.");
  EXPECT_EQ(read("xwinograd_fr").size(), 1u);
  EXPECT_TRUE(read("xwinograd_ru").empty());
  folder_.write("xwinograd/en.jsonl",
                R"({"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "1"})");
  EXPECT_EQ(read("xwinograd_en")[0].choices[1], "a y");
}

TEST_F(ReadersTest, XwinogradErrors) {
  std::string table(kXwinograd);
  table.replace(table.find("[3, 4]"), 6, "[3, 9]");
  folder_.write("xwinograd.tsv", table);
  EXPECT_EQ(problem("xwinograd_en"), "xwinograd.tsv:2: field 'tokens' are fewer than named");
  table = kXwinograd;
  table.replace(table.find("\"said\""), 6, "\"says\"");
  folder_.write("xwinograd.tsv", table);
  EXPECT_EQ(problem("xwinograd_en"),
            "xwinograd.tsv:2: field 'tokens' do not spell the sentence: \"says\"");
  table = kXwinograd;
  table.replace(table.rfind("true"), 4, "false");
  folder_.write("xwinograd.tsv", table);
  EXPECT_EQ(problem("xwinograd_en"),
            "xwinograd.tsv:2: field 'candidates' do not have exactly one right one");
  folder_.write("xwinograd.tsv", "en\tx\n");
  EXPECT_EQ(problem("xwinograd_en"), "xwinograd.tsv:1: the row has 2 fields, expected 7");
}

TEST_F(ReadersTest, MmluWritesTheChoicesIntoThePrompt) {
  folder_.write("data/test/abstract_algebra_test.csv", "\" What, is\nit? \",w,x,y,\"z, z\",D\n");
  const EvalDoc doc = read("mmlu_abstract_algebra")[0];
  EXPECT_EQ(doc.context, "What, is\nit?\nA. w\nB. x\nC. y\nD. z, z\nAnswer:");
  EXPECT_EQ(doc.choices, (Texts{"A", "B", "C", "D"}));
  EXPECT_EQ(doc.gold, 3);
  EXPECT_EQ(find_eval_task("mmlu_abstract_algebra")->description,
            "The following are multiple choice questions (with answers) about abstract algebra."
            "\n\n");
  folder_.write(
      "mmlu/abstract_algebra/test.jsonl",
      R"({"question": "Q", "subject": "s", "choices": ["1", "2", "3", "4"], "answer": 0})");
  EXPECT_EQ(read("mmlu_abstract_algebra")[0].context, "Q\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:");
  folder_.write("mmlu/abstract_algebra/test.jsonl",
                R"({"question": "Q", "choices": ["1", "2", "3", "4"], "answer": 4})");
  EXPECT_EQ(problem("mmlu_abstract_algebra"),
            "test.jsonl:1: field 'answer' is 4, but the choices are 0 to 3");
  folder_.write("data/test/anatomy_test.csv", "q,w,x,y,z,A\nq,w,x,y,A\n");
  EXPECT_EQ(problem("mmlu_anatomy"), "anatomy_test.csv:2: the row has 5 fields, expected 6");
  folder_.write("data/test/anatomy_test.csv", "q,w,x,y,z,E\n");
  EXPECT_EQ(problem("mmlu_anatomy"),
            "anatomy_test.csv:1: field 'answer' is \"E\", but the choices are A, B, C, D");
}

TEST_F(ReadersTest, CmmluIsAskedInChinese) {
  folder_.write("test/agronomy.csv", ",Question,A,B,C,D,Answer\n0,问题,甲,乙,丙,丁,B\n");
  const EvalDoc doc = read("cmmlu_agronomy")[0];
  EXPECT_EQ(doc.context, "问题\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案：");
  EXPECT_EQ(doc.gold, 1);
  EXPECT_EQ(find_eval_task("cmmlu_agronomy")->description,
            "以下是关于农学的单项选择题，请直接给出正确答案的选项。\n\n");
}

TEST_F(ReadersTest, LambadaScoresWhatStandsBehindTheLastSpace) {
  folder_.write("lambada_openai_test.jsonl",
                "{\"text\": \"a\\n\\nb c's d.\"}\n{\"text\": \"one\"}");
  const std::vector<EvalDoc> docs = read("lambada_openai");
  EXPECT_EQ(docs[0].context, "a\n\nb c's");
  EXPECT_EQ(docs[0].target, " d.");
  EXPECT_EQ(docs[1].context, "");
  EXPECT_EQ(docs[1].target, " one");
  folder_.write("lambada_test_plain_text.txt", "x y\r\n\nz w\n");
  const std::vector<EvalDoc> plain = read("lambada_standard");
  ASSERT_EQ(plain.size(), 2u);
  EXPECT_EQ(plain[0].target, " y");
  EXPECT_TRUE(plain[1].where.ends_with(":3"));
}

TEST_F(ReadersTest, BlimpHasTwoSentencesAndNoContext) {
  folder_.write("blimp/adjunct_island.jsonl",
                R"({"sentence_good": "Good.", "sentence_bad": "Bad.", "UID": "adjunct_island"})");
  const EvalDoc doc = read("blimp_adjunct_island")[0];
  EXPECT_EQ(doc.context, "");
  EXPECT_EQ(doc.choices, (Texts{"Good.", "Bad."}));
  EXPECT_EQ(doc.gold, 0);
}

TEST_F(ReadersTest, WikitextIsCutBeforeTitlesAndDetokenised) {
  folder_.write("wiki.test.raw",
                " \n = First = \n \n A 1 @,@ 000 \" quote \" ( in ) it 's . \n = = Part = = \n x \n"
                " = Second = \n y \n");
  const std::vector<EvalDoc> docs = read("wikitext");
  ASSERT_EQ(docs.size(), 2u);
  EXPECT_EQ(docs[0].target, " = First =\n\nA 1,000 \"quote\" (in) it's.\n== Part ==\nx ");
  EXPECT_EQ(docs[1].target, " = Second =\ny\n");
  // Bytes and words of the page as published; its outer whitespace counts an empty word each.
  EXPECT_EQ(docs[1].bytes, 17);
  EXPECT_EQ(docs[1].words, 6);
  EXPECT_TRUE(docs[1].where.ends_with("wiki.test.raw:7"));
  EXPECT_EQ(read("wikitext", 1).size(), 1u);
}

TEST_F(ReadersTest, ShardsAreReadInOrderAndPackedFilesAreFound) {
  folder_.write("xwinograd/en.jsonl.gz", "");
  EXPECT_EQ(find_task_files(folder_.path(), find_eval_task("xwinograd_en")->files).size(), 1u);
  folder_.write("piqa/validation-00001-of-00002.parquet", "");
  folder_.write("piqa/validation-00000-of-00002.parquet", "");
  const auto shards = find_task_files(folder_.path(), find_eval_task("piqa")->files);
  ASSERT_EQ(shards.size(), 2u);
  EXPECT_EQ(shards[0].filename(), "validation-00000-of-00002.parquet");
  EXPECT_TRUE(find_task_files(folder_.path(), find_eval_task("hellaswag")->files).empty());
}

TEST(TaskTable, GroupsHoldWhatLmEvalsGroupsHold) {
  EXPECT_EQ(tasks_of(*find_eval_group("mmlu")).size(), 57u);
  EXPECT_EQ(groups_of(*find_eval_group("mmlu")).size(), 5u);
  EXPECT_EQ(tasks_of(*find_eval_group("mmlu_stem")).size(), 19u);
  EXPECT_EQ(tasks_of(*find_eval_group("cmmlu")).size(), 67u);
  EXPECT_EQ(tasks_of(*find_eval_group("blimp")).size(), 67u);
  EXPECT_EQ(tasks_of(*find_eval_group("xwinograd")).size(), 6u);
  std::vector<std::string> names = eval_task_names();
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
}

}  // namespace
}  // namespace espalier
