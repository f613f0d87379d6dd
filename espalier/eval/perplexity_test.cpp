// Perplexity against whole logits in float64, for every protocol; the same bits for every batch
// size.
#include "espalier/eval/perplexity.h"

#include <cmath>
#include <cstdlib>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/random.h"
#include "espalier/text/tokenizer.h"

#include "tests/support/random_decoder.h"

namespace espalier {
namespace {

using testing_support::random_decoder;
using testing_support::tiny_config;

constexpr TokenId kBos = 7;

TokenText random_text(std::int64_t tokens) {
  TokenText text;
  text.path = "random.txt";
  RandomStream stream(3, "text");
  for (std::int64_t i = 0; i < tokens; ++i)
    text.ids.push_back(static_cast<TokenId>(stream.below(300)));
  return text;
}

/// NLL sum of the last `counted` tokens of ids[begin, end), by the plain route.
double oracle(const Decoder& model, const TokenText& text, std::int64_t begin, std::int64_t end,
              std::int64_t counted, bool bos) {
  std::vector<std::int64_t> row;
  if (bos) row.push_back(kBos);
  for (std::int64_t i = begin; i < end; ++i) row.push_back(text.ids[static_cast<std::size_t>(i)]);
  const at::Tensor ids = at::tensor(row, at::kLong).unsqueeze(0);
  const at::Tensor log_probabilities = at::log_softmax(model.forward(ids)[0].to(at::kDouble), -1);
  double sum = 0;
  for (std::int64_t i = static_cast<std::int64_t>(row.size()) - counted;
       i < static_cast<std::int64_t>(row.size()); ++i) {
    sum -= log_probabilities[i - 1][row[static_cast<std::size_t>(i)]].item<double>();
  }
  return sum;
}

PerplexityResult run(const Decoder& model, const TokenText& text,
                     const PerplexityOptions& options) {
  return perplexity(model, text, options, kBos, silent_reporter());
}

TEST(Perplexity, PlainSegmentsPredictAllButTheirFirstToken) {
  const Decoder model = random_decoder(tiny_config());
  const TokenText text = random_text(70);
  const PerplexityResult result = run(model, text, {.seq_len = 16});
  double total = 0;
  std::vector<double> means;
  for (std::int64_t s = 0; s < 4; ++s) {
    const double nll = oracle(model, text, s * 16, s * 16 + 16, 15, false);
    EXPECT_NEAR(result.segment_nll[static_cast<std::size_t>(s)], nll, 1e-4);
    means.push_back(nll / 15);
    total += nll;
  }
  EXPECT_EQ(result.segments, 4);
  EXPECT_EQ(result.tokens, 60);
  EXPECT_NEAR(result.nll, total / 60, 1e-5);
  EXPECT_DOUBLE_EQ(result.perplexity, std::exp(result.nll));
  // Equal lengths: the ratio estimator is the standard error of the segments' means.
  double mean = 0, squares = 0;
  for (const double m : means) mean += m / 4;
  for (const double m : means) squares += (m - mean) * (m - mean);
  EXPECT_NEAR(result.nll_stderr, std::sqrt(squares / 3 / 4), 1e-5);
  EXPECT_DOUBLE_EQ(result.perplexity_stderr, result.perplexity * result.nll_stderr);
}

TEST(Perplexity, WithBosEveryTokenIsPredicted) {
  const Decoder model = random_decoder(tiny_config());
  const TokenText text = random_text(32);
  const PerplexityResult result = run(model, text, {.seq_len = 16, .add_bos = true});
  EXPECT_EQ(result.tokens, 32);
  EXPECT_NEAR(result.segment_nll[1], oracle(model, text, 16, 32, 16, true), 1e-4);
}

TEST(Perplexity, StridedWindowsCountEachTokenOnce) {
  const Decoder model = random_decoder(tiny_config());
  const TokenText text = random_text(45);
  const PerplexityResult result = run(model, text, {.seq_len = 16, .stride = 6});
  // Windows 0-16, 6-22, 12-28, 18-34, 24-40, 30-45: the last ends with the text.
  const std::vector<std::int64_t> counted{15, 6, 6, 6, 6, 5};
  EXPECT_EQ(result.segment_tokens, counted);
  EXPECT_EQ(result.tokens, 44);
  EXPECT_NEAR(result.segment_nll[3], oracle(model, text, 18, 34, 6, false), 1e-4);
  EXPECT_NEAR(result.segment_nll[5], oracle(model, text, 30, 45, 5, false), 1e-4);
  const PerplexityResult with_bos = run(model, text, {.seq_len = 16, .stride = 6, .add_bos = true});
  EXPECT_EQ(with_bos.tokens, 45);
  EXPECT_NEAR(with_bos.segment_nll[0], oracle(model, text, 0, 16, 16, true), 1e-4);
}

TEST(Perplexity, AStrideOfTheWholeWindowIsThePlainProtocolPlusTheTail) {
  const Decoder model = random_decoder(tiny_config());
  const TokenText text = random_text(38);
  const PerplexityResult plain = run(model, text, {.seq_len = 16});
  const PerplexityResult strided = run(model, text, {.seq_len = 16, .stride = 16});
  EXPECT_EQ(strided.segment_tokens, (std::vector<std::int64_t>{15, 15, 5}));
  EXPECT_EQ(strided.segment_nll[0], plain.segment_nll[0]);
  EXPECT_EQ(strided.segment_nll[1], plain.segment_nll[1]);
}

TEST(Perplexity, TheScoreDoesNotMoveWithTheBatch) {
  const Decoder model = random_decoder(tiny_config());
  const TokenText text = random_text(24 * 19 + 5);
  for (const std::int64_t stride : {0, 7}) {
    const PerplexityResult alone =
        run(model, text, {.seq_len = 24, .stride = stride, .batch_tokens = 1});
    for (const std::int64_t batch : {24, 48, 72, 24 * 5, 24 * 8, 24 * 13, 100'000}) {
      const PerplexityResult together =
          run(model, text, {.seq_len = 24, .stride = stride, .batch_tokens = batch});
      ASSERT_EQ(together.segment_nll, alone.segment_nll)
          << "batch of " << batch << " tokens, stride " << stride;
      ASSERT_EQ(together.perplexity, alone.perplexity);
    }
  }
}

TEST(Perplexity, LimitsAndEarlyStopOfTheText) {
  const Decoder model = random_decoder(tiny_config(2));
  const TokenText text = random_text(200);
  EXPECT_EQ(run(model, text, {.seq_len = 16, .max_segments = 3}).segments, 3);
  const PerplexityOptions strided{.seq_len = 16, .stride = 4, .max_segments = 5};
  TokenText part = text;
  part.ids.resize(static_cast<std::size_t>(perplexity_text_tokens(strided)));
  EXPECT_EQ(run(model, part, strided).segment_nll, run(model, text, strided).segment_nll);
  EXPECT_EQ(perplexity_text_tokens({.seq_len = 16}), 0);
}

TEST(Perplexity, RefusesBadSizes) {
  const Decoder model = random_decoder(tiny_config(1));
  try {
    run(model, random_text(64), {.seq_len = 16, .stride = 17, .batch_tokens = 0});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(error.message().find("--stride is 17, allowed is 0 (no overlap) to --seq-len 16"),
              std::string::npos);
    EXPECT_NE(error.message().find("--batch-tokens is 0"), std::string::npos);
  }
}

TEST(Perplexity, NamesTheSegmentWhoseLossIsNotANumber) {
  Decoder model = random_decoder(tiny_config(2, /*tied=*/false));
  TokenText text = random_text(64);
  model.embedding() = model.embedding().clone();
  model.embedding()[11].fill_(NAN);
  for (TokenId& id : text.ids) id = id == 11 ? 12 : id;
  text.ids[40] = 11;
  try {
    run(model, text, {.seq_len = 16, .batch_tokens = 16});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(std::string(error.what()).find("the loss of segment 2 is nan"), std::string::npos)
        << error.what();
  }
}

/// SmolLM2-135M-Instruct on the first 24 x 128 tokens of WikiText-2 test: transformers
/// gives 51.7388.
TEST(Perplexity, AnchorOfSmolLM2) {
  const char* data = std::getenv("ESPALIER_DATA");
  const char* model_path = std::getenv("ESPALIER_SMOLLM2");
  if (!data || !model_path) {
    GTEST_SKIP() << "set ESPALIER_DATA (holds text/wikitext2_test.txt) and ESPALIER_SMOLLM2 "
                    "(SmolLM2 folder or GGUF)";
  }
  const Decoder model = Decoder::load(model_path, at::kFloat, at::kCPU);
  const Tokenizer tokenizer = Tokenizer::load(model_path);
  const PerplexityOptions options{.seq_len = 128, .max_segments = 24};
  const TokenText text =
      load_token_text(std::filesystem::path(data) / "text" / "wikitext2_test.txt", tokenizer,
                      silent_reporter(), true, perplexity_text_tokens(options));
  const PerplexityResult result = run(model, text, options);
  EXPECT_EQ(result.tokens, 3048);
  EXPECT_NEAR(result.perplexity, 51.7388, 5e-4);
  EXPECT_NEAR(result.nll, 3.94621, 1e-5);
  for (const std::int64_t batch : {128, 3072}) {
    PerplexityOptions other = options;
    other.batch_tokens = batch;
    EXPECT_EQ(run(model, text, other).segment_nll, result.segment_nll) << batch;
  }
}

}  // namespace
}  // namespace espalier
