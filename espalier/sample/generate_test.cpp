// The decoding loop on a tiny random model: equal to forwards without a cache, ends, limits,
// streams.
#include <gtest/gtest.h>

#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/json_internal.h"
#include "espalier/sample/sampler.h"

#include "tests/support/random_decoder.h"

namespace espalier {
namespace {

/// Letters a-z as ids 0-25 and " a".. never; enough to see text.
Tokenizer letters() {
  Json vocab = Json::object();
  for (int i = 0; i < 26; ++i) vocab[std::string(1, static_cast<char>('a' + i))] = i;
  const Json json = {{"version", "1.0"},
                     {"added_tokens", Json::array()},
                     {"normalizer", nullptr},
                     {"pre_tokenizer",
                      {{"type", "ByteLevel"},
                       {"add_prefix_space", false},
                       {"trim_offsets", true},
                       {"use_regex", true}}},
                     {"post_processor", nullptr},
                     {"decoder",
                      {{"type", "ByteLevel"},
                       {"add_prefix_space", false},
                       {"trim_offsets", true},
                       {"use_regex", true}}},
                     {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
  return Tokenizer::from_json(json.dump());
}

DecoderConfig tiny() {
  DecoderConfig config = testing_support::tiny_config(2);
  config.context_length = 40;
  return config;
}

/// The tokens chosen by whole forwards without a cache.
std::vector<TokenId> uncached(const Decoder& model, std::vector<std::int64_t> ids,
                              std::int64_t count) {
  c10::NoGradGuard no_grad;
  std::vector<TokenId> out;
  for (std::int64_t i = 0; i < count; ++i) {
    const at::Tensor logits =
        model.forward(at::tensor(ids, at::kLong).unsqueeze(0))[0][-1].narrow(0, 0, 26);
    out.push_back(static_cast<TokenId>(logits.argmax().item<std::int64_t>()));
    ids.push_back(out.back());
  }
  return out;
}

TEST(GenerateTest, GreedyEqualsForwardsWithoutACache) {
  const Decoder model = testing_support::random_decoder(tiny());
  SamplingOptions options;
  options.max_new_tokens = 12;
  const Generation g = generate(model, letters(), {3, 14, 15}, options);
  EXPECT_EQ(g.token_ids, uncached(model, {3, 14, 15}, 12));
  EXPECT_EQ(g.finish_reason, "length");
  EXPECT_EQ(g.prompt_tokens, 3);
  EXPECT_EQ(g.text.size(), 12u);
}

TEST(GenerateTest, EndTokenIsNotPartOfTheText) {
  const Decoder plain = testing_support::random_decoder(tiny());
  const std::vector<TokenId> tokens = uncached(plain, {3, 14, 15}, 12);
  DecoderConfig config = tiny();
  config.eos_token_ids = {299, tokens[4]};
  const Decoder model = testing_support::random_decoder(config);
  SamplingOptions options;
  options.max_new_tokens = 12;
  const Generation g = generate(model, letters(), {3, 14, 15}, options);
  const auto end = std::find(tokens.begin(), tokens.end(), tokens[4]);
  EXPECT_EQ(g.finish_reason, "eos");
  EXPECT_EQ(g.token_ids, std::vector<TokenId>(tokens.begin(), end));
  options.ignore_eos = true;
  EXPECT_EQ(generate(model, letters(), {3, 14, 15}, options).token_ids, tokens);
}

TEST(GenerateTest, StopStringEndsTheTextBeforeIt) {
  const Decoder model = testing_support::random_decoder(tiny());
  SamplingOptions options;
  options.max_new_tokens = 12;
  const std::string whole = generate(model, letters(), {3}, options).text;
  options.stop = {whole.substr(5, 2)};
  std::string streamed;
  const Generation g =
      generate(model, letters(), {3}, options, [&](std::string_view piece) { streamed += piece; });
  EXPECT_EQ(g.finish_reason, "stop");
  EXPECT_EQ(g.text, whole.substr(0, whole.find(options.stop[0])));
  EXPECT_EQ(streamed, g.text);
}

TEST(GenerateTest, TheContextIsALimit) {
  const Decoder model = testing_support::random_decoder(tiny());
  SamplingOptions options;
  options.max_new_tokens = 100;
  const Generation g = generate(model, letters(), std::vector<TokenId>(30, 2), options);
  EXPECT_EQ(g.finish_reason, "context");
  EXPECT_EQ(g.token_ids.size(), 11u) << "10 more positions, and the token after the last";
  try {
    generate(model, letters(), std::vector<TokenId>(40, 2), options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(error.to_string().find("has 40 tokens, but the model's context is 40"),
              std::string::npos)
        << error.to_string();
  }
}

TEST(GenerateTest, SamplingIsDecidedByTheSeed) {
  const Decoder model = testing_support::random_decoder(tiny());
  SamplingOptions options;
  options.max_new_tokens = 10;
  options.temperature = 1.5;
  const auto run = [&](std::uint64_t seed) {
    options.seed = seed;
    return generate(model, letters(), {1, 2}, options).token_ids;
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
}

TEST(GenerateTest, NothingAskedNothingGiven) {
  const Decoder model = testing_support::random_decoder(tiny());
  SamplingOptions options;
  options.max_new_tokens = 0;
  EXPECT_TRUE(generate(model, letters(), {1}, options).token_ids.empty());
  EXPECT_THROW(generate(model, letters(), {}, options), Error);
}

TEST(GenerateTest, BadOptionsAreListedTogether) {
  const Decoder model = testing_support::random_decoder(tiny());
  SamplingOptions options;
  options.temperature = -1;
  options.top_p = 0;
  options.top_k = -3;
  try {
    generate(model, letters(), {1}, options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    for (const char* part : {"temperature is -1", "top-p is 0", "top-k is -3"})
      EXPECT_NE(error.to_string().find(part), std::string::npos) << error.to_string();
  }
}

TEST(GenerateTest, StopsOnRequest) {
  struct Now : StopToken {
    bool stop_requested() const override { return true; }
  };
  const Decoder model = testing_support::random_decoder(tiny());
  EXPECT_THROW(generate(model, letters(), {1}, {}, {}, Now{}), Interrupted);
}

}  // namespace
}  // namespace espalier
