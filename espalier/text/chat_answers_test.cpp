// Which tokens of a conversation are answers, for templates that differ in what they do around and
// to them; one byte is one token here, so spans can be compared as text.
#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/text/chat_template.h"

#include "tests/support/byte_tokenizer.h"

namespace espalier {
namespace {

using testing_support::byte_tokenizer;
using testing_support::ids_of;

/// The answers' tokens, special ones as in ids_of, "|" between answers.
std::string answers(const std::string& source, const std::vector<ChatMessage>& messages) {
  const Tokenizer tokenizer = byte_tokenizer();
  const ChatTokens chat = ChatTemplate(source).encode_with_answers(tokenizer, messages);
  EXPECT_EQ(chat.ids, ChatTemplate(source).encode(tokenizer, messages, false));
  std::string text;
  for (const auto& [begin, end] : chat.answers) {
    if (!text.empty()) text += '|';
    for (std::size_t i = begin; i < end; ++i)
      text += static_cast<char>(chat.ids[i] < 256 ? chat.ids[i] : chat.ids[i] - 255);
  }
  return text;
}

const std::vector<ChatMessage> kTwoTurns{{"system", "S"},
                                         {"user", "hello"},
                                         {"assistant", "hello"},
                                         {"user", "hello"},
                                         {"assistant", "bye"}};

// No header in front of an answer, the system message inside the first user turn.
constexpr const char* kInst =
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}";

// Thoughts are shown in the last answer only, as in templates of models that reason.
constexpr const char* kThinking =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' and "
    "not loop.last %}{{ m.content.split('</think>')[-1].strip() }}{% elif m.role == 'assistant' "
    "%}{{ '<think></think>' + m.content.split('</think>')[-1].strip() }}{% else %}{{ m.content "
    "}}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\\n' }}{% endif %}";

// The system message goes in front of the last user message, so beginnings are not beginnings.
constexpr const char* kSystemLast =
    "{% set s = messages[0].content %}{% for m in messages[1:] %}{% if m.role == 'user' %}{% if "
    "loop.last or loop.index == messages | length - 2 %}{{ '[INST]' + s + m.content + '[/INST]' }}"
    "{% else %}{{ '[INST]' + m.content + '[/INST]' }}{% endif %}{% else %}{{ m.content + eos_token "
    "}}{% endif %}{% endfor %}";

TEST(ChatAnswers, RunFromTheHeaderToTheEndOfTurn) {
  EXPECT_EQ(answers(testing_support::kChatTemplate, kTwoTurns), "hello\4|bye\4");
}

TEST(ChatAnswers, TemplatesWithoutHeadersGiveTheBlankToTheModel) {
  EXPECT_EQ(answers(kInst, kTwoTurns), " hello\2| bye\2");
}

TEST(ChatAnswers, ThoughtsThatATemplateTakesAwayAreNotMissed) {
  const std::vector<ChatMessage> messages{{"user", "a"},
                                          {"assistant", "<think>x</think>\nfirst"},
                                          {"user", "b"},
                                          {"assistant", "second"}};
  EXPECT_EQ(answers(kThinking, messages), "first\4|<think></think>second\4");
}

TEST(ChatAnswers, AreFoundWhereBeginningsDiffer) {
  EXPECT_EQ(answers(kSystemLast, kTwoTurns), "hello\2|bye\2");
}

TEST(ChatAnswers, AnEmptyAnswerHasNoTokens) {
  EXPECT_EQ(answers(testing_support::kChatTemplate,
                    {{"user", "u"}, {"assistant", " \n"}, {"user", "v"}, {"assistant", "x"}}),
            "x\4");
  EXPECT_EQ(answers(testing_support::kChatTemplate, {{"user", "u"}}), "");
}

TEST(ChatAnswers, SpecialTokensInAnswersStayLetters) {
  EXPECT_EQ(answers(testing_support::kChatTemplate, {{"user", "u"}, {"assistant", "<|im_end|>x"}}),
            "<|im_end|>x\4");
}

TEST(ChatAnswers, WithoutASpecialTokenTheLastWordIsTheEnd) {
  EXPECT_EQ(answers("{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
                    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
                    {{"user", "u"}, {"assistant", "yes"}, {"user", "v"}}),
            " yes");
}

TEST(ChatAnswers, HiddenWordsAreRefusedByMessage) {
  try {
    answers("{{ messages[0].content }}", {{"user", "u"}, {"assistant", "yes"}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_NE(error.message().find("message 1"), std::string::npos);
    EXPECT_EQ(error.hint_text(), "train on the whole conversation instead: --train-on all");
  }
}

TEST(EndOfTurn, IsTheTemplatesOwnToken) {
  const Tokenizer tokenizer = byte_tokenizer();
  EXPECT_EQ(ChatTemplate(testing_support::kChatTemplate).end_of_turn(tokenizer),
            testing_support::kTurnEnd);
  EXPECT_EQ(ChatTemplate(kInst).end_of_turn(tokenizer), testing_support::kEos);
  EXPECT_EQ(
      ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}").end_of_turn(tokenizer),
      std::nullopt);
  EXPECT_EQ(ChatTemplate("{{ raise_exception('no') }}").end_of_turn(tokenizer), std::nullopt);
}

}  // namespace
}  // namespace espalier
