// Every layout by hand-made rows whose ids can be read; what is masked, cut, skipped and counted;
// bad rows with file, line and field.
#include "espalier/data/sft_rows.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/data/sft_prompts.h"

#include "tests/support/byte_tokenizer.h"

namespace espalier {
namespace {

using testing_support::byte_tokenizer;
using testing_support::ids_of;
using testing_support::Surround;

class SftRows : public testing::Test {
 protected:
  SftData load(std::string_view text, SftOptions options = {},
               const Tokenizer& tokenizer = byte_tokenizer(), const char* name = "rows.jsonl") {
    return load_sft_data(folder_.write(name, text), tokenizer, options, silent_reporter());
  }
  Error refused(std::string_view text, SftOptions options = {},
                const Tokenizer& tokenizer = byte_tokenizer(), const char* name = "rows.jsonl") {
    try {
      load(text, options, tokenizer, name);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "accepted: " << text;
    return Error(ErrorKind::kInternal, "", "");
  }
  std::string place(int line) const {
    return (folder_ / "rows.jsonl").string() + ":" + std::to_string(line);
  }
  TempFolder folder_;
};

/// The row's labels as text: "." where masked, special tokens as in ids_of.
std::string labels_text(const TrainingRow& row) {
  std::string text;
  for (const TokenId id : row.labels) {
    if (id == kIgnoredLabel) {
      text += '.';
    } else {
      text += static_cast<char>(id < 256 ? id : id - 255);
    }
  }
  return text;
}

std::string dots(std::size_t count) { return std::string(count, '.'); }

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// ------------------------------------------------------------------------------------- prompts

TEST(SftPrompts, AlpacaIsTheTextOfSpecAndPaper) {
  EXPECT_EQ(alpaca_prompt("Do it.", "", "Done").prompt,
            "Below is an instruction that describes a task. Write a response that appropriately "
            "completes the request.\n\n### Instruction:\nDo it.\n\n### Response:\n");
  const PromptText with = alpaca_prompt("Do it.", "now", "Done");
  EXPECT_EQ(with.prompt,
            "Below is an instruction that describes a task, paired with an input that provides "
            "further context. Write a response that appropriately completes the request.\n\n### "
            "Instruction:\nDo it.\n\n### Input:\nnow\n\n### Response:\n");
  EXPECT_EQ(with.answer, "Done");
}

TEST(SftPrompts, DollyWritesInputWithoutHashesAndEndsTheAnswer) {
  const PromptText text = dolly_prompt("Say.", "ctx", "Hi");
  EXPECT_EQ(text.prompt + text.answer,
            "Below is an instruction that describes a task. Write a response that appropriately "
            "completes the request.\n\n### Instruction:\nSay.\n\nInput:\nctx\n\n### "
            "Response:\nHi\n\n### End");
  EXPECT_FALSE(has(dolly_prompt("Say.", "", "Hi").prompt, "Input:"));
}

TEST(SftPrompts, ZeroEndsTheInstructionInAColon) {
  EXPECT_EQ(zero_prompt("Add.", "1 2", "3").prompt, "Add: 1 2.");
  EXPECT_EQ(zero_prompt("Add", "", "3").prompt, "Add: ");
  EXPECT_EQ(zero_prompt("Why?", "x!", "3").prompt, "Why? x!");
  EXPECT_EQ(zero_prompt("Add.", "1", "3").answer, " 3");
}

// ------------------------------------------------------------------------------- instructions

TEST_F(SftRows, AlpacaMasksThePromptAndAppendsEos) {
  const SftData data = load(R"({"instruction": "Go", "input": "", "output": "ok"})");
  EXPECT_EQ(data.format, SftFormat::kAlpaca);
  EXPECT_EQ(data.cutoff, 256);
  ASSERT_EQ(data.rows.size(), 1);
  const PromptText text = alpaca_prompt("Go", "", "ok");
  EXPECT_EQ(data.rows.row(0).ids, ids_of(text.prompt + "ok\2"));
  EXPECT_EQ(labels_text(data.rows.row(0)), dots(text.prompt.size()) + "ok\2");
  EXPECT_EQ(data.rows.predicted(), 3);
}

TEST_F(SftRows, WhatTheTokenizerAddsCountsAsPromptAndEosComesOnce) {
  const char* row = R"({"prompt": "ab", "completion": "cd"})";
  const SftData bos = load(row, {}, byte_tokenizer(Surround::kBos));
  EXPECT_EQ(bos.rows.row(0).ids, ids_of("\1"
                                        "abcd\2"));
  EXPECT_EQ(labels_text(bos.rows.row(0)), "...cd\2");
  const SftData both = load(row, {}, byte_tokenizer(Surround::kBosAndEos));
  EXPECT_EQ(both.rows.row(0).ids, ids_of("\1"
                                         "abcd\2"));
  EXPECT_EQ(labels_text(both.rows.row(0)), "...cd\2");
}

TEST_F(SftRows, LongRowsLoseTheirEndAndEosAndThoseWithoutAnswerAreCounted) {
  const SftData data = load(
      "{\"prompt\": \"abc\", \"completion\": \"defgh\"}\n"
      "{\"prompt\": \"abcdef\", \"completion\": \"g\"}\n"
      "{\"prompt\": \"abcdefg\", \"completion\": \"h\"}\n"
      "{\"prompt\": \"a\", \"completion\": \"\"}\n"
      "{\"prompt\": \"a\", \"completion\": \"b\"}\n"
      "{\"prompt\": \"abc\", \"completion\": \"def\"}\n",
      {.cutoff = 6});
  ASSERT_EQ(data.rows.size(), 3);
  EXPECT_EQ(labels_text(data.rows.row(0)), "...def");
  EXPECT_EQ(labels_text(data.rows.row(1)), ".b\2");
  EXPECT_EQ(labels_text(data.rows.row(2)), "...def");  // exactly full: no room for EOS
  const RowCounts& counts = data.rows.counts;
  EXPECT_EQ(counts.read, 6);
  EXPECT_EQ(counts.answer_cut, 2);
  EXPECT_EQ(counts.without_answer, 1);
  EXPECT_EQ(counts.truncated, 1);
  EXPECT_EQ(counts.too_long, 0);
  EXPECT_EQ(
      describe_rows(data),
      "6 rows of completion: 3 to train on, 1 without an answer, 2 whose answer lies behind 6 "
      "tokens, 1 cut off");
}

TEST_F(SftRows, CuttingKeepsWhatTheTokenizerPutsAtTheEnd) {
  const SftData data = load(R"({"prompt": "ab", "completion": "cdefgh"})", {.cutoff = 6},
                            byte_tokenizer(Surround::kBosAndEos));
  EXPECT_EQ(data.rows.row(0).ids, ids_of("\1"
                                         "abcd\2"));  // as transformers truncates
  EXPECT_EQ(labels_text(data.rows.row(0)), "...cd\2");
}

TEST_F(SftRows, TrainOnAllPredictsThePromptToo) {
  const SftData data = load(R"({"prompt": "ab", "completion": "cd"})", {.train_on = TrainOn::kAll});
  EXPECT_EQ(labels_text(data.rows.row(0)), "abcd\2");
}

TEST_F(SftRows, SpecialTokensInInstructionsAreAMatterOfChoice) {
  const char* row = R"({"prompt": "a</s>", "completion": "b"})";
  EXPECT_EQ(load(row).rows.row(0).ids, ids_of("a\2b\2"));
  EXPECT_EQ(load(row, {.special_in_text = false}).rows.row(0).ids, ids_of("a</s>b\2"));
}

TEST_F(SftRows, NullAndMissingInputsAreEmpty) {
  const SftData data = load(
      "{\"instruction\": \"Go\", \"input\": null, \"output\": \"ok\"}\n"
      "{\"instruction\": \"Go\", \"output\": \"ok\"}\n");
  ASSERT_EQ(data.rows.size(), 2);
  EXPECT_EQ(data.rows.row(0).ids, data.rows.row(1).ids);
}

// -------------------------------------------------------------------------------------- Dolly

TEST_F(SftRows, DollyMasksThroughTheWholeKey) {
  const char* row = R"({"instruction": "Go", "context": "", "response": "ok", "category": "x"})";
  const PromptText text = dolly_prompt("Go", "", "ok");
  const SftData data = load(row);
  EXPECT_EQ(data.format, SftFormat::kDolly);
  EXPECT_EQ(data.cutoff, 1024);
  EXPECT_EQ(labels_text(data.rows.row(0)), dots(text.prompt.size()) + "ok\n\n### End\2");
}

TEST_F(SftRows, DollyMaskIgnoresAKeyInTheInstruction) {
  const char* row =
      R"({"instruction": "Write ### Response:\n twice", "context": "", "response": "ok"})";
  const SftData data = load(row);
  EXPECT_EQ(data.rows.predicted(), 12);  // "ok\n\n### End" and EOS
}

TEST_F(SftRows, DollyCompatReproducesTheReferencesMask) {
  const char* row = R"({"instruction": "Go", "context": "", "response": "ok"})";
  const std::string all = dolly_prompt("Go", "", "ok").prompt + "ok\n\n### End";
  SftOptions options;
  options.dolly_mask = DollyMask::kCompat;
  // With BOS the key's first token is BOS: one position is masked, the whole text trained on.
  const SftData bos = load(row, options, byte_tokenizer(Surround::kBos));
  EXPECT_EQ(labels_text(bos.rows.row(0)), "." + all);
  // Without, the mask ends at the first '#', that of "### Instruction".
  const SftData plain = load(row, options);
  const std::size_t hash = all.find('#') + 1;
  EXPECT_EQ(labels_text(plain.rows.row(0)), dots(hash) + all.substr(hash));
}

TEST_F(SftRows, DollyKeepsOnlyRowsShorterThanTheCutoff) {
  const char* row = R"({"instruction": "Go", "context": "", "response": "ok"})";
  const PromptText text = dolly_prompt("Go", "", "ok");
  const auto length = static_cast<std::int64_t>(text.prompt.size() + text.answer.size());
  const SftData kept = load(row, {.cutoff = length + 1});
  EXPECT_EQ(kept.rows.length(0), length + 1);  // with EOS
  const Error error = refused(row, {.cutoff = length});
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  EXPECT_TRUE(
      has(error.message(), "leaves nothing to train on: 1 rows of dolly: 0 to train on, 1 of "))
      << error.what();
  EXPECT_EQ(error.hint_text(), "--seq-len " + std::to_string(2 * length));
}

// --------------------------------------------------------------------------------------- chat

TEST_F(SftRows, ChatTrainsOnWhatTheAssistantSaysAndItsEndOfTurn) {
  const char* row =
      R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "<|im_end|>?"}, {"role": "assistant", "content": " A "}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "B"}]})";
  const SftData data = load(row);
  const std::string text =
      "\3system\nS\4\n\3user\n<|im_end|>?\4\n\3assistant\nA\4\n\3user\nU\4\n\3assistant\nB\4\n";
  EXPECT_EQ(data.rows.row(0).ids, ids_of(text));  // a user's special token stays letters
  std::string labels = dots(text.size());
  labels.replace(text.find("A\4"), 2, "A\4");
  labels.replace(text.find("B\4"), 2, "B\4");
  EXPECT_EQ(labels_text(data.rows.row(0)), labels);
  EXPECT_EQ(labels_text(load(row, {.train_on = TrainOn::kAll}).rows.row(0)), text);
}

TEST_F(SftRows, ShareGptIsTheSameConversation) {
  const char* share =
      R"({"conversations": [{"from": "human", "value": "U"}, {"from": "gpt", "value": "B"}]})";
  const char* chat =
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "U"}]}, {"role": "assistant", "content": "B"}]})";
  EXPECT_EQ(load(share).rows.digest(), load(chat).rows.digest());
}

TEST_F(SftRows, ChatsWithoutAnAnswerAreCountedAndLongOnesCut) {
  const SftData data = load(
      R"({"messages": [{"role": "user", "content": "U"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": " "}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "abcdef"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "UUUUUUUUUUUUUUUUUUUUU"}, {"role": "assistant", "content": "a"}]})",
      {.cutoff = 23});
  EXPECT_EQ(data.rows.counts.without_answer, 2);
  EXPECT_EQ(data.rows.counts.answer_cut, 1);
  EXPECT_EQ(data.rows.counts.truncated, 1);
  ASSERT_EQ(data.rows.size(), 1);
  EXPECT_EQ(labels_text(data.rows.row(0)), dots(20) + "abc");
}

TEST_F(SftRows, AChatNeedsATemplate) {
  const Error error = refused(R"({"messages": [{"role": "user", "content": "U"}]})", {},
                              byte_tokenizer(Surround::kNothing, ""));
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  EXPECT_STREQ(error.what(), "chat template: the model comes without one");
  EXPECT_EQ(error.hint_text(), "add chat_template.jinja to the model folder");
}

TEST_F(SftRows, WhatATemplateRaisesNamesTheRow) {
  const Error error =
      refused(R"({"messages": [{"role": "user", "content": "U"}]})", {},
              byte_tokenizer(Surround::kNothing, "{{ raise_exception('no users here') }}"));
  EXPECT_TRUE(has(error.message(), "no users here"));
  ASSERT_EQ(error.context().size(), 1u);
  EXPECT_EQ(error.context()[0], "reading " + place(1));
}

TEST_F(SftRows, ATemplateThatHidesTheWordsIsRefused) {
  const Error error = refused(
      R"({"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "B"}]})",
      {}, byte_tokenizer(Surround::kNothing, "{{ messages[0].content }}"));
  EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
  EXPECT_TRUE(has(error.message(), "does not show the words of message 1"));
  EXPECT_TRUE(has(error.hint_text(), "--train-on all"));
}

// --------------------------------------------------------------------------------------- text

TEST_F(SftRows, TextRowsAreCutIntoAsManyRowsAsTheyNeed) {
  const SftData data =
      load("{\"text\": \"abcdefgh\"}\n{\"text\": \"\"}\n{\"text\": \"abcd\"}", {.cutoff = 4});
  EXPECT_EQ(data.format, SftFormat::kText);
  ASSERT_EQ(data.rows.size(), 3);
  EXPECT_EQ(labels_text(data.rows.row(0)), "abcd");
  EXPECT_EQ(labels_text(data.rows.row(1)), "efgh");
  EXPECT_EQ(labels_text(data.rows.row(2)), "abcd");
  EXPECT_EQ(data.rows.counts.without_answer, 1);
  const SftData shorter = load(R"({"text": "abcde"})", {.cutoff = 4});
  ASSERT_EQ(shorter.rows.size(), 2);
  EXPECT_EQ(shorter.rows.row(1).ids, ids_of("e\2"));
}

TEST_F(SftRows, AFileThatIsNoTableIsATextAsItStands) {
  const SftData data = load("{\"a\": 1} plain words", {.cutoff = 4}, byte_tokenizer(), "notes.txt");
  EXPECT_EQ(data.format, SftFormat::kText);
  EXPECT_EQ(data.rows.size(), 5);
  EXPECT_EQ(data.rows.row(0).labels, ids_of("{\"a\""));
  EXPECT_EQ(data.sha256.size(), 64u);
}

// ------------------------------------------------------------------------------------ bad rows

TEST_F(SftRows, EveryBadRowNamesFileLineAndField) {
  struct Case {
    const char* row;
    SftFormat format;
    const char* says;
  };
  const Case cases[] = {
      {R"({"instruction": "Go", "output": 5})", SftFormat::kAuto,
       "field 'output' is a number, expected text"},
      {R"({"instruction": "Go"})", SftFormat::kAlpaca,
       "field 'output' is missing (found: instruction)"},
      {R"({"instruction": ["Go"], "response": "x"})", SftFormat::kAuto,
       "field 'instruction' is a list"},
      {R"({"instruction": "Go", "context": {}, "response": "x"})", SftFormat::kAuto,
       "field 'context' is an object"},
      {R"({"prompt": null, "completion": "x"})", SftFormat::kAuto,
       "field 'prompt' is null, expected text"},
      {R"({"text": true})", SftFormat::kAuto, "field 'text' is a boolean"},
      {R"({})", SftFormat::kText, "field 'text' is missing (found: none)"},
      {R"({"messages": "hi"})", SftFormat::kAuto, "field 'messages' is text, expected a list"},
      {R"({"messages": []})", SftFormat::kAuto, "field 'messages' is empty"},
      {R"({"messages": ["hi"]})", SftFormat::kAuto, "messages[0] is text, expected an object"},
      {R"({"messages": [{"role": "user"}]})", SftFormat::kAuto,
       "messages[0] has no 'content' (found: role)"},
      {R"({"conversations": [{"value": "x"}]})", SftFormat::kAuto,
       "conversations[0] has no 'from'"},
      {R"({"messages": [{"role": "narrator", "content": "x"}]})", SftFormat::kAuto,
       "messages[0].role is 'narrator', expected system, user or assistant"},
      {R"({"messages": [{"role": "user", "content": 3}]})", SftFormat::kAuto,
       "messages[0].content is a number"},
      {R"({"messages": [{"role": 1, "content": "x"}]})", SftFormat::kAuto,
       "messages[0].role is a number"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image"}]}]})", SftFormat::kAuto,
       "holds a part without text"},
  };
  for (const Case& c : cases) {
    SftOptions options;
    options.format = c.format;
    const Error error = refused(std::string("\n") + c.row, options);
    EXPECT_EQ(error.kind(), ErrorKind::kInput) << c.row;
    EXPECT_EQ(error.subject(), place(2)) << c.row;
    EXPECT_TRUE(has(error.message(), c.says)) << error.what();
    EXPECT_EQ(error.hint_text(), "mend the rows, or name their layout with --format");
  }
}

TEST_F(SftRows, BadRowsAreReportedTogetherUpToTwenty) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += i == 1 ? "{\"text\": \"fine\"}\n" : "{\"text\": 1}\n";
  const Error error = refused(text);
  EXPECT_EQ(error.subject(), (folder_ / "rows.jsonl").string());
  EXPECT_TRUE(has(error.message(), "20 problems")) << error.message();
  EXPECT_TRUE(has(error.message(), place(1) + ": field 'text' is a number"));
  EXPECT_TRUE(has(error.message(), place(21) + ":"));
  EXPECT_FALSE(has(error.message(), place(22) + ":"));
}

TEST_F(SftRows, UnknownLayoutsAndEmptyFilesAreRefused) {
  const Error layout = refused(R"({"question": "x", "answer": "y"})");
  EXPECT_EQ(layout.subject(), place(1));
  EXPECT_TRUE(has(layout.message(), "of no layout we know (found: question, answer)"));
  EXPECT_TRUE(has(layout.hint_text(), "prompt and completion"));
  EXPECT_TRUE(has(refused("").message(), "is empty"));
  EXPECT_EQ(refused("[]", {}, byte_tokenizer(), "rows.json").message(), "holds no rows");
  const Error none = refused(R"({"prompt": "x", "completion": ""})");
  EXPECT_TRUE(has(none.message(),
                  "leaves nothing to train on: 1 rows of completion: 0 to train on, 1 without an"));
  EXPECT_EQ(refused(R"({"text": "x"})", {.cutoff = 1}).kind(), ErrorKind::kUsage);
  EXPECT_THROW(parse_sft_format("csv"), Error);
  for (const char* name : {"auto", "text", "alpaca", "dolly", "chat", "completion", "zero"})
    EXPECT_EQ(sft_format_name(parse_sft_format(name)), name);
}

TEST_F(SftRows, AStopRequestIsHeard) {
  struct Stop final : StopToken {
    bool stop_requested() const override { return true; }
  };
  EXPECT_THROW(load_sft_data(folder_.write("rows.jsonl", "{\"text\": \"x\"}"), byte_tokenizer(), {},
                             silent_reporter(), Stop()),
               Interrupted);
}

}  // namespace
}  // namespace espalier
