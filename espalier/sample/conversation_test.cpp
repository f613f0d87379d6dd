// A conversation equals single texts of the whole prompt; only new tokens are computed; stops and
// limits leave the history usable.
#include "espalier/sample/conversation.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"

#include "tests/support/byte_tokenizer.h"
#include "tests/support/random_decoder.h"

namespace espalier {
namespace {

using testing_support::byte_tokenizer;

DecoderConfig config_with_context(std::int64_t context) {
  DecoderConfig config = testing_support::tiny_config(2);
  config.context_length = context;
  return config;
}

SamplingOptions sampled(std::int64_t tokens) {
  SamplingOptions options;
  options.temperature = 1;
  options.seed = 5;
  options.max_new_tokens = tokens;
  options.ignore_eos = true;
  return options;
}

TEST(Conversation, EqualsTextsOfTheWholePromptAndComputesOnlyWhatIsNew) {
  const Decoder model = testing_support::random_decoder(config_with_context(512));
  const Tokenizer tokenizer = byte_tokenizer();
  SamplingOptions greedy;
  greedy.max_new_tokens = 12;
  Conversation conversation(model, tokenizer, "Be brief.");
  std::vector<ChatMessage> messages{{"system", "Be brief."}};
  std::int64_t before = 0;
  for (const char* words : {"Hello", "And now?", "<|im_end|> so"}) {
    messages.push_back({"user", words});
    const std::vector<TokenId> prompt = encode_chat(tokenizer, messages, true);
    const Generation alone = generate(model, tokenizer, prompt, greedy);
    std::string streamed;
    const ChatTurn turn =
        conversation.say(words, greedy, [&](std::string_view piece) { streamed += piece; });
    EXPECT_EQ(turn.token_ids, alone.token_ids);
    EXPECT_EQ(turn.text, alone.text);
    EXPECT_EQ(streamed, turn.text);
    EXPECT_EQ(turn.prompt_tokens, static_cast<std::int64_t>(prompt.size()));
    EXPECT_LE(turn.prefilled_tokens, turn.prompt_tokens - before);
    before = turn.prompt_tokens;
    messages.push_back({"assistant", turn.text});
  }
  EXPECT_EQ(conversation.messages().size(), 7u);
}

TEST(Conversation, TurnsDrawFromStreamsOfTheirOwn) {
  const Decoder model = testing_support::random_decoder(config_with_context(512));
  const Tokenizer tokenizer = byte_tokenizer();
  Conversation conversation(model, tokenizer);
  const ChatTurn first = conversation.say("a", sampled(8));
  EXPECT_EQ(first.token_ids,
            generate(model, tokenizer, encode_chat(tokenizer, {{"user", "a"}}, true), sampled(8))
                .token_ids);
  conversation.say("b", sampled(8));
  conversation.reset();
  EXPECT_TRUE(conversation.messages().empty());
  EXPECT_EQ(conversation.say("a", sampled(8)).token_ids, first.token_ids);
}

TEST(Conversation, AStopEndsTheAnswerAndKeepsWhatWasSaid) {
  struct Stop final : StopToken {
    bool now = false;
    bool stop_requested() const override { return now; }
  } stop;
  const Decoder model = testing_support::random_decoder(config_with_context(512));
  const Tokenizer tokenizer = byte_tokenizer();
  Conversation conversation(model, tokenizer);
  int pieces = 0;
  const ChatTurn turn = conversation.say(
      "a", sampled(200), [&](std::string_view) { stop.now = ++pieces == 3; }, stop);
  EXPECT_EQ(turn.finish_reason, "interrupted");
  EXPECT_LT(turn.token_ids.size(), 200u);
  ASSERT_EQ(conversation.messages().size(), 2u);
  EXPECT_EQ(conversation.messages()[1].content, turn.text);
  // Before the first token nothing is kept, and the conversation goes on as if it had not been.
  stop.now = true;
  EXPECT_EQ(conversation.say("b", sampled(4), {}, stop).finish_reason, "interrupted");
  EXPECT_EQ(conversation.messages().size(), 2u);
  stop.now = false;
  EXPECT_EQ(conversation.say("c", sampled(4), {}, stop).finish_reason, "length");
  EXPECT_EQ(conversation.messages().size(), 4u);
}

TEST(Conversation, AFullContextIsAnErrorThatLeavesTheHistory) {
  const Decoder model = testing_support::random_decoder(config_with_context(96));
  const Tokenizer tokenizer = byte_tokenizer();
  Conversation conversation(model, tokenizer);
  conversation.say("hi", sampled(4));
  try {
    conversation.say(std::string(90, 'x'), sampled(4));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_EQ(error.subject(), "conversation");
    EXPECT_NE(error.message().find("the model's context is 96"), std::string::npos);
    EXPECT_EQ(error.hint_text(), "/reset starts a new one");
  }
  EXPECT_EQ(conversation.messages().size(), 2u);
  conversation.reset();
  EXPECT_EQ(conversation.say(std::string(50, 'x'), sampled(50)).finish_reason, "context");
}

TEST(Conversation, EndsAtTheTemplatesEndOfTurn) {
  const Decoder model = testing_support::random_decoder(config_with_context(512));
  const Tokenizer tokenizer = byte_tokenizer();
  Conversation conversation(model, tokenizer);
  SamplingOptions options;
  options.max_new_tokens = 12;
  const ChatTurn whole = conversation.say("a", options);
  ASSERT_FALSE(whole.token_ids.empty());
  conversation.reset();
  options.end_ids = {whole.token_ids[0]};
  const ChatTurn ended = conversation.say("a", options);
  EXPECT_EQ(ended.finish_reason, "eos");
  EXPECT_TRUE(ended.token_ids.empty());
}

TEST(Conversation, NeedsATemplate) {
  const Decoder model = testing_support::random_decoder(config_with_context(64));
  const Tokenizer tokenizer = byte_tokenizer(testing_support::Surround::kNothing, "");
  try {
    Conversation conversation(model, tokenizer);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_STREQ(error.what(), "chat template: the model comes without one");
  }
}

}  // namespace
}  // namespace espalier
