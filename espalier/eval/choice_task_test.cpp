// From a folder of files to scores and lm-eval's files, on a random model; groups that are partly
// there, examples in front of prompts, and what cannot be asked for.
#include "espalier/eval/choice_task.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/eval/task_report.h"

#include "tests/support/random_decoder.h"

namespace espalier {
namespace {

using testing_support::random_decoder;
using testing_support::tiny_config;

/// Keeps what is warned about.
class Warnings final : public Reporter {
 public:
  void log(LogLevel level, std::string_view message) override {
    if (level == LogLevel::kWarn) text += std::string(message) + "\n";
  }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    return silent_reporter().phase(name, total, unit);
  }
  std::string text;
};

class ChoiceTaskTest : public testing::Test {
 protected:
  LoadedTasks load(std::vector<std::string> names, const TaskOptions& options = {}) {
    return load_tasks(names, folder_.path(), options, warnings_);
  }
  Error failure(std::vector<std::string> names, const TaskOptions& options = {}) {
    try {
      load(std::move(names), options);
    } catch (const Error& error) {
      return error;
    }
    return {ErrorKind::kInternal, "nothing", "was thrown"};
  }
  /// Letters a to h, a space and a few marks; one token each.
  Tokenizer tokenizer() {
    folder_.write("t/tokenizer.json",
                  R"({"added_tokens": [{"id": 0, "content": "<s>", "special": true}], "model":)"
                  R"( {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5,)"
                  R"( "f": 6, "g": 7, "h": 8, " ": 9, "A": 10, "B": 11}, "merges": []}})");
    folder_.write("t/tokenizer_config.json", R"({"bos_token": "<s>"})");
    return Tokenizer::from_folder(folder_ / "t");
  }
  void write_blimp() {
    folder_.write("blimp/wh_island.jsonl",
                  "{\"sentence_good\": \"a b\", \"sentence_bad\": \"b\"}\n"
                  "{\"sentence_good\": \"c\", \"sentence_bad\": \"d e\"}\n");
    folder_.write("blimp/causative.jsonl", "{\"sentence_good\": \"f\", \"sentence_bad\": \"g\"}\n");
  }

  TempFolder folder_;
  Warnings warnings_;
};

TEST_F(ChoiceTaskTest, ExamplesStandInFrontOfEveryPrompt) {
  folder_.write("data/dev/anatomy_dev.csv", "D1,1,2,3,4,B\nD2,1,2,3,4,C\nD3,1,2,3,4,A\n");
  folder_.write("data/test/anatomy_test.csv", "Q,w,x,y,z,A\n");
  const LoadedTasks loaded = load({"mmlu_anatomy"}, {.limit = 0, .num_fewshot = 2});
  const std::vector<TextPair> pairs = text_pairs(loaded.tasks[0], loaded.tasks[0].docs[0]);
  ASSERT_EQ(pairs.size(), 4u);
  EXPECT_EQ(pairs[3].continuation, " D");
  EXPECT_EQ(pairs[3].context,
            "The following are multiple choice questions (with answers) about anatomy.\n\n"
            "D1\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n\nD2\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: C\n\n"
            "Q\nA. w\nB. x\nC. y\nD. z\nAnswer:");
  EXPECT_EQ(failure({"mmlu_anatomy"}, {.limit = 0, .num_fewshot = 4}).kind(), ErrorKind::kUsage);
}

TEST_F(ChoiceTaskTest, WinograndesExamplesAreWholeSentences) {
  const std::string row = R"({"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "2"})";
  folder_.write("dev.jsonl", row);
  folder_.write("train_xl.jsonl", row);
  const LoadedTasks loaded = load({"winogrande"}, {.limit = 0, .num_fewshot = 1});
  const std::vector<TextPair> pairs = text_pairs(loaded.tasks[0], loaded.tasks[0].docs[0]);
  EXPECT_EQ(pairs[0].context, "a y b\n\na x");
  EXPECT_EQ(pairs[1].context, "a y b\n\na y");
  EXPECT_EQ(pairs[1].continuation, " b");
}

TEST_F(ChoiceTaskTest, AGroupIsLoadedAsFarAsItIsThere) {
  write_blimp();
  const LoadedTasks loaded = load({"blimp", "blimp_wh_island"}, {.limit = 1, .num_fewshot = 3});
  ASSERT_EQ(loaded.tasks.size(), 2u);
  EXPECT_EQ(loaded.tasks[0].task->name, "blimp_causative");
  EXPECT_EQ(loaded.tasks[1].docs.size(), 1u);
  EXPECT_EQ(loaded.tasks[1].available, 2);
  EXPECT_EQ(loaded.tasks[1].num_fewshot, 0);
  EXPECT_EQ(loaded.missing.size(), 65u);
  EXPECT_NE(warnings_.text.find("blimp is scored on 2 of its 67 parts"), std::string::npos);
  EXPECT_NE(warnings_.text.find("--num-fewshot does not apply"), std::string::npos);
}

TEST_F(ChoiceTaskTest, Refusals) {
  write_blimp();
  EXPECT_EQ(failure({"blimpp"}).kind(), ErrorKind::kUnsupported);
  EXPECT_EQ(failure({"blimp_passive_1"}).kind(), ErrorKind::kInput);
  const Error missing = failure({"mmlu"});
  EXPECT_NE(missing.message().find("looked for test/abstract_algebra_test.csv"), std::string::npos)
      << missing.to_string();
  folder_.write("lambada_openai_test.jsonl", R"({"text": "a b"})");
  EXPECT_EQ(failure({"lambada"}, {.limit = 0, .num_fewshot = 1}).kind(), ErrorKind::kUsage);
  EXPECT_EQ(load_tasks({}, folder_.path(), {}, warnings_).tasks.size(), 0u);
  EXPECT_THROW(load_tasks({}, folder_ / "none", {}, warnings_), Error);
}

TEST_F(ChoiceTaskTest, ScoresAreThoseOfTheirRequests) {
  write_blimp();
  folder_.write("lambada_openai_test.jsonl", R"({"text": "a b c d"})");
  folder_.write("wiki.test.raw", "a b c\n");
  const Decoder model = random_decoder(tiny_config());
  const Tokenizer words = tokenizer();
  const PairEncoder encoder(words, std::nullopt);
  const LoadedTasks loaded = load({"blimp", "lambada", "wikitext"});
  const TaskScores scores = score_tasks(model, loaded, encoder, {}, silent_reporter());
  ASSERT_EQ(scores.tasks.size(), 4u);
  const LikelihoodRequest request{{0}, {9, 1, 9, 2}};  // " a b" behind <s>
  const double expected =
      log_likelihoods(model, std::span(&request, 1), {}, silent_reporter())[0].log_likelihood;
  EXPECT_NEAR(scores.tasks[1].docs[0].answers[0].log_likelihood, expected, 1e-5);
  EXPECT_EQ(scores.tasks[2].docs[0].answers.size(), 1u);
  EXPECT_GT(scores.stats.request_tokens, 0);
  ASSERT_EQ(scores.groups.size(), 1u);
  EXPECT_EQ(scores.groups[0].n, 3);
  EXPECT_EQ(scores.groups[0].members,
            (std::vector<std::string>{"blimp_causative", "blimp_wh_island"}));
  EXPECT_DOUBLE_EQ(scores.groups[0].metrics[0].value,
                   (scores.tasks[0].metrics[0].value + scores.tasks[1].metrics[0].value) / 2);
}

TEST_F(ChoiceTaskTest, AnAnswerThatCannotFitNamesItsRow) {
  write_blimp();
  const Decoder model = random_decoder(tiny_config());
  const Tokenizer words = tokenizer();
  const LoadedTasks loaded = load({"blimp_wh_island"});
  try {
    score_tasks(model, loaded, PairEncoder(words, std::nullopt), {.max_length = 3},
                silent_reporter());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_TRUE(error.subject().ends_with("wh_island.jsonl:1")) << error.to_string();
    EXPECT_EQ(error.hint_text(), "--max-length 5");
  }
}

TEST_F(ChoiceTaskTest, FilesHaveLmEvalsFields) {
  write_blimp();
  folder_.write("wiki.test.raw", "a b c\n");
  const Decoder model = random_decoder(tiny_config());
  const Tokenizer words = tokenizer();
  const PairEncoder encoder(words, std::nullopt);
  const LoadedTasks loaded = load({"blimp", "wikitext"});
  const TaskScores scores = score_tasks(model, loaded, encoder, {}, silent_reporter());
  const std::string lines = samples_jsonl(loaded.tasks[1], scores.tasks[1]);
  const Json first = parse_json(lines.substr(0, lines.find('\n')), "samples");
  EXPECT_EQ(first["doc"]["sentence_bad"], "b");
  EXPECT_EQ(first["arguments"]["gen_args_1"]["arg_0"], "");
  EXPECT_EQ(first["arguments"]["gen_args_1"]["arg_1"], " b");
  EXPECT_EQ(first["target"], "0");
  EXPECT_EQ(first["filtered_resps"].size(), 2u);
  EXPECT_EQ(first["resps"][0][0], first["filtered_resps"][0]);
  EXPECT_TRUE(first["filtered_resps"][0][0].is_string());
  EXPECT_EQ(first["metrics"], Json::array({"acc"}));
  EXPECT_TRUE(first["acc"].is_number());
  // SHA-256 of the empty context.
  EXPECT_EQ(first["prompt_hash"],
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2);

  LmEvalRun run{.model = "m", .dtype = "float32", .device = "cpu", .version = "0"};
  const Json json = parse_json(lm_eval_json(loaded, scores, run), "results");
  EXPECT_EQ(json["results"]["blimp"]["sample_len"], 3);
  EXPECT_TRUE(json["results"]["blimp_wh_island"]["acc,none"].is_number());
  EXPECT_EQ(json["results"]["blimp_causative"]["acc_stderr,none"], "N/A");
  EXPECT_EQ(json["results"]["wikitext"]["word_perplexity_stderr,none"], "N/A");
  EXPECT_EQ(json["n-samples"]["blimp_wh_island"]["effective"], 2);
  EXPECT_EQ(json["group_subtasks"]["blimp"].size(), 2u);
  EXPECT_TRUE(json["config"]["limit"].is_null());
}

}  // namespace
}  // namespace espalier
