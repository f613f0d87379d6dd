// Where a context ends and its continuation begins, in tokens.
#include "espalier/eval/pair_encoder.h"

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"

namespace espalier {
namespace {

using Ids = std::vector<TokenId>;
constexpr TokenId kBos = 0, kA = 1, kSpace = 3, kSpaceB = 4, kAb = 5;

/// One token a character, and tokens for " b" and "ab".
Tokenizer make_tokenizer(std::string_view config) {
  const TempFolder folder;
  folder.write("tokenizer.json",
               R"({"added_tokens": [{"id": 0, "content": "<s>", "special": true}],)"
               R"( "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, " ": 3, " b": 4,)"
               R"( "ab": 5}, "merges": [[" ", "b"], ["a", "b"]]}})");
  folder.write("tokenizer_config.json", config);
  return Tokenizer::from_folder(folder.path());
}

class PairEncoderTest : public testing::Test {
 protected:
  Tokenizer tokenizer_ = make_tokenizer(R"({"bos_token": "<s>"})");
  PairEncoder plain_{tokenizer_, std::nullopt};
  PairEncoder with_bos_{tokenizer_, kBos};
};

TEST_F(PairEncoderTest, WhitespaceMovesToTheContinuation) {
  const LikelihoodRequest request = plain_.encode("aa ", "b", "x");
  EXPECT_EQ(request.context, (Ids{kA, kA}));
  EXPECT_EQ(request.continuation, (Ids{kSpaceB}));
}

TEST_F(PairEncoderTest, ATokenAcrossTheBorderBelongsToNeitherWhole) {
  // "a" is one token, "ab b" is two: what is left behind the context's one token is " b".
  const LikelihoodRequest request = plain_.encode("a", "b b", "x");
  EXPECT_EQ(request.context, (Ids{kA}));
  EXPECT_EQ(request.continuation, (Ids{kSpaceB}));
  EXPECT_THROW(plain_.encode("a", "b", "file:7"), Error);
}

TEST_F(PairEncoderTest, AnEmptyContextIsThePrefixToken) {
  for (const std::string_view context : {"", " "}) {
    const LikelihoodRequest request = plain_.encode(context, "ab", "x");
    EXPECT_EQ(request.context, (Ids{kBos}));
    EXPECT_EQ(request.continuation, context.empty() ? (Ids{kAb}) : (Ids{kSpace, kAb}));
  }
  // No second one with BOS on, nor when the text brings its own.
  EXPECT_EQ(with_bos_.encode("", "a", "x").context, (Ids{kBos}));
  EXPECT_EQ(with_bos_.encode("", "a", "x").continuation, (Ids{kA}));
  EXPECT_EQ(plain_.encode("", "<s>a", "x").continuation, (Ids{kA}));
}

TEST_F(PairEncoderTest, BosStandsInFrontOnce) {
  EXPECT_EQ(with_bos_.encode("a", " b", "x").context, (Ids{kBos, kA}));
  EXPECT_EQ(with_bos_.encode("a", " b", "x").continuation, (Ids{kSpaceB}));
  EXPECT_EQ(with_bos_.encode("<s>a", " b", "x").context, (Ids{kBos, kA}));
  EXPECT_EQ(with_bos_.encode_page("ab"), (Ids{kBos, kAb}));
}

TEST_F(PairEncoderTest, NothingToScoreNamesTheRow) {
  try {
    plain_.encode("a", "", "file:7");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_EQ(error.subject(), "file:7");
  }
}

TEST(PairEncoder, EosStandsInForAMissingBos) {
  const Tokenizer eos = make_tokenizer(R"({"eos_token": "<s>"})");
  EXPECT_EQ(PairEncoder(eos, std::nullopt).prefix(), kBos);
  const Tokenizer neither = make_tokenizer("{}");
  EXPECT_THROW(PairEncoder(neither, std::nullopt), Error);
}

}  // namespace
}  // namespace espalier
