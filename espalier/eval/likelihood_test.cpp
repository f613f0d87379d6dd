// Log-likelihoods against one request at a time through whole logits in float64; the same bits in
// any company; rolling windows that predict every token once.
#include "espalier/eval/likelihood.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/random.h"

#include "tests/support/random_decoder.h"

namespace espalier {
namespace {

using testing_support::random_decoder;
using testing_support::tiny_config;

std::vector<TokenId> random_tokens(RandomStream& stream, std::uint64_t count) {
  std::vector<TokenId> out;
  for (std::uint64_t i = 0; i < count; ++i) out.push_back(static_cast<TokenId>(stream.below(300)));
  return out;
}

/// Items of 1 to 4 choices; every third item's choices are single tokens.
std::vector<LikelihoodRequest> items(std::uint64_t seed, int count) {
  RandomStream stream(seed, "items");
  std::vector<LikelihoodRequest> out;
  for (int i = 0; i < count; ++i) {
    const std::vector<TokenId> context = random_tokens(stream, 1 + stream.below(30));
    for (std::uint64_t choice = 0, choices = 1 + stream.below(4); choice < choices; ++choice)
      out.push_back({context, random_tokens(stream, i % 3 == 0 ? 1 : 1 + stream.below(12))});
  }
  return out;
}

struct Expected {
  double log_likelihood = 0;
  bool greedy = true;
};

/// The definition: the last `max_length` + 1 tokens, without the final one as input.
Expected oracle(const Decoder& model, const LikelihoodRequest& request, std::int64_t max_length) {
  std::vector<std::int64_t> row(request.context.begin(), request.context.end());
  row.insert(row.end(), request.continuation.begin(), request.continuation.end());
  const auto keep = std::min<std::ptrdiff_t>(std::ssize(row), max_length + 1);
  row.erase(row.begin(), row.end() - keep);
  const at::Tensor all = at::tensor(row, at::kLong);
  const at::Tensor logits =
      model.forward(all.narrow(0, 0, all.size(0) - 1).unsqueeze(0))[0].to(at::kDouble);
  const at::Tensor log_probabilities = at::log_softmax(logits, -1);
  Expected out;
  for (std::int64_t i = all.size(0) - std::ssize(request.continuation); i < all.size(0); ++i) {
    const auto token = all[i].item<std::int64_t>();
    out.log_likelihood += log_probabilities[i - 1][token].item<double>();
    out.greedy = out.greedy && logits[i - 1].argmax().item<std::int64_t>() == token;
  }
  return out;
}

std::vector<Likelihood> run(const Decoder& model, const std::vector<LikelihoodRequest>& requests,
                            const LikelihoodOptions& options = {},
                            LikelihoodStats* stats = nullptr) {
  return log_likelihoods(model, requests, options, silent_reporter(), never_stop(), stats);
}

/// Layers with and without a window and rope; scores capped when softcap > 0, as gemma2's.
DecoderConfig windowed_config(double softcap) {
  DecoderConfig config = tiny_config();
  config.window = {0, 7, 0, 12};
  config.use_rope = {1, 1, 0, 1};
  config.attention_softcap = softcap;
  config.final_softcap = softcap;
  return config;
}

/// phi3's: sequences of more than 16 tokens take other rotary factors.
DecoderConfig longrope_config() {
  DecoderConfig config = tiny_config();
  config.rope_scaling.kind = RopeScaling::Kind::kLongrope;
  config.rope_scaling.original_context = 16;
  config.rope_scaling.short_factors.assign(8, 1.0);
  config.rope_scaling.long_factors.assign(8, 4.0);
  config.rope_scaling.attention_factor = 1.2;
  return config;
}

std::vector<DecoderConfig> configs() {
  return {tiny_config(), windowed_config(0), windowed_config(20), longrope_config()};
}

TEST(Likelihood, EqualsOneRequestAtATime) {
  const std::vector<LikelihoodRequest> requests = items(1, 25);
  for (const DecoderConfig& config : configs()) {
    const Decoder model = random_decoder(config);
    std::vector<Expected> expected;
    for (const LikelihoodRequest& request : requests)
      expected.push_back(oracle(model, request, 2048));
    for (const LikelihoodOptions& options :
         {LikelihoodOptions{.batch_tokens = 100},
          {.batch_tokens = 100, .rectangles = true},
          {.batch_tokens = 100, .batch_invariant = false, .rectangles = true}}) {
      const std::vector<Likelihood> found = run(model, requests, options);
      ASSERT_EQ(found.size(), requests.size());
      for (std::size_t i = 0; i < requests.size(); ++i) {
        EXPECT_NEAR(found[i].log_likelihood, expected[i].log_likelihood,
                    1e-5 * std::abs(expected[i].log_likelihood))
            << i;
        EXPECT_EQ(found[i].greedy, expected[i].greedy) << i;
      }
    }
  }
}

TEST(Likelihood, GreedyContinuationsAreSeen) {
  const Decoder model = random_decoder(tiny_config());
  RandomStream stream(9, "greedy");
  std::vector<LikelihoodRequest> requests;
  for (int i = 0; i < 6; ++i) {
    LikelihoodRequest request{random_tokens(stream, 5), {}};
    std::vector<std::int64_t> row(request.context.begin(), request.context.end());
    for (int k = 0; k < 3; ++k) {
      row.push_back(model.forward(at::tensor(row, at::kLong).unsqueeze(0))[0][-1]
                        .argmax()
                        .item<std::int64_t>());
      request.continuation.push_back(static_cast<TokenId>(row.back()));
    }
    requests.push_back(request);
    request.continuation.back() = (request.continuation.back() + 1) % 300;
    requests.push_back(request);
  }
  const std::vector<Likelihood> found = run(model, requests);
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i].greedy, i % 2 == 0) << i;
}

/// Requests in another order, some without their neighbours.
void expect_bits_in_any_company(const Decoder& model,
                                const std::vector<LikelihoodRequest>& requests,
                                const std::vector<Likelihood>& expected,
                                const LikelihoodOptions& options) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < requests.size() * 2 / 3; ++i)
    order.push_back((i * 7 + 3) % requests.size());
  std::vector<LikelihoodRequest> some;
  for (const std::size_t i : order) some.push_back(requests[i]);
  const std::vector<Likelihood> found = run(model, some, options);
  for (std::size_t i = 0; i < order.size(); ++i) {
    ASSERT_EQ(found[i].log_likelihood, expected[order[i]].log_likelihood)
        << "batch " << options.batch_tokens << ", request " << order[i];
  }
}

TEST(Likelihood, AnyOrderBatchAndCompanyGiveTheSameBits) {
  const std::vector<LikelihoodRequest> requests = items(2, 20);
  for (const DecoderConfig& config : configs()) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const Decoder model = random_decoder(config, type);
      const std::vector<Likelihood> expected = run(model, requests);
      for (const std::int64_t batch : {1, 37, 5000})
        expect_bits_in_any_company(model, requests, expected, {.batch_tokens = batch});
      expect_bits_in_any_company(model, requests, expected, {.share = false});
    }
  }
}

TEST(Likelihood, RectanglesOfFixedShapesGiveTheSameBits) {
  const std::vector<LikelihoodRequest> requests = items(2, 20);
  for (const DecoderConfig& config : configs()) {
    const Decoder model = random_decoder(config);
    const LikelihoodOptions options{.batch_tokens = 150, .rectangles = true};
    expect_bits_in_any_company(model, requests, run(model, requests, options), options);
  }
}

TEST(Likelihood, RectanglesAreFilledUp) {
  const Decoder model = random_decoder(tiny_config(1));
  RandomStream stream(6, "widths");
  const std::vector<TokenId> context = random_tokens(stream, 20);
  // Letters share a row of 20 tokens, another has 20 + 9, a third 20 + 14.
  const std::vector<LikelihoodRequest> requests{{context, {1}},
                                                {context, {2}},
                                                {context, random_tokens(stream, 10)},
                                                {context, random_tokens(stream, 15)}};
  LikelihoodStats stats;
  LikelihoodOptions options{.batch_tokens = 100, .rectangles = true};
  run(model, requests, options, &stats);
  EXPECT_EQ(stats.forward_tokens, 2 * 48 + 3 * 32);
  options.batch_invariant = false;
  run(model, requests, options, &stats);
  EXPECT_EQ(stats.forward_tokens, 2 * 34 + 20);
}

TEST(Likelihood, EqualContextsRunOnce) {
  const Decoder model = random_decoder(tiny_config());
  RandomStream stream(3, "shared");
  const std::vector<TokenId> context = random_tokens(stream, 50);
  std::vector<LikelihoodRequest> requests;
  for (TokenId choice = 0; choice < 4; ++choice) requests.push_back({context, {choice}});
  requests.push_back({context, random_tokens(stream, 5)});
  LikelihoodStats stats;
  run(model, requests, {}, &stats);
  EXPECT_EQ(stats.forward_tokens, 50 + 4);
  const std::int64_t together = stats.request_tokens;
  run(model, requests, {.share = false}, &stats);
  EXPECT_EQ(stats.forward_tokens, together);
  EXPECT_EQ(stats.request_tokens, 4 * 50 + 54);
  EXPECT_EQ(stats.truncated, 0);
}

TEST(Likelihood, LongContextsAreCutOnTheLeft) {
  const Decoder model = random_decoder(tiny_config());
  RandomStream stream(4, "long");
  const std::vector<TokenId> context = random_tokens(stream, 40);
  const std::vector<LikelihoodRequest> requests{{context, random_tokens(stream, 3)},
                                                {context, random_tokens(stream, 20)},
                                                {random_tokens(stream, 4), {5}}};
  LikelihoodStats stats;
  const std::vector<Likelihood> found = run(model, requests, {.max_length = 20}, &stats);
  EXPECT_EQ(stats.truncated, 2);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const double expected = oracle(model, requests[i], 20).log_likelihood;
    EXPECT_NEAR(found[i].log_likelihood, expected, 1e-5 * std::abs(expected)) << i;
  }
}

TEST(Likelihood, SlidingWindowsReachIntoTheSharedContext) {
  DecoderConfig config = tiny_config();
  config.window.assign(4, 6);
  const Decoder model = random_decoder(config);
  const std::vector<LikelihoodRequest> requests = items(5, 10);
  const std::vector<Likelihood> found = run(model, requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const double expected = oracle(model, requests[i], 2048).log_likelihood;
    EXPECT_NEAR(found[i].log_likelihood, expected, 1e-5 * std::abs(expected)) << i;
  }
}

TEST(Likelihood, RefusalsNameTheRequest) {
  const Decoder model = random_decoder(tiny_config());
  const auto error_of = [&](const std::vector<LikelihoodRequest>& requests) {
    try {
      run(model, requests, {.max_length = 8});
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(error_of({{{1}, {2}}, {{1}, std::vector<TokenId>(9, 3)}}).find("request 1"),
            std::string::npos);
  EXPECT_NE(error_of({{{1, 300}, {2}}}).find("token id 300 is outside the vocabulary of 300"),
            std::string::npos);
  Decoder broken = random_decoder(tiny_config());
  broken.embedding()[7].fill_(std::numeric_limits<float>::quiet_NaN());
  const std::vector<LikelihoodRequest> requests{{{1}, {2}}, {{7}, {2}}};
  EXPECT_THROW(run(broken, requests), Error);
}

TEST(Likelihood, AStopRequestInterrupts) {
  const Decoder model = random_decoder(tiny_config());
  struct Now final : StopToken {
    bool stop_requested() const override { return true; }
  } const now;
  const std::vector<LikelihoodRequest> requests = items(6, 2);
  EXPECT_THROW(log_likelihoods(model, requests, {}, silent_reporter(), now), Interrupted);
}

TEST(RollingLikelihood, WindowsPredictEveryTokenOnce) {
  RandomStream stream(7, "page");
  for (const std::uint64_t length : {0, 1, 7, 8, 9, 16, 17, 30}) {
    const std::vector<TokenId> page = random_tokens(stream, length);
    std::vector<TokenId> predicted;
    for (const LikelihoodRequest& window : rolling_requests(page, 0, 8)) {
      EXPECT_LE(window.context.size() + window.continuation.size(), 9U);
      if (predicted.empty()) {
        EXPECT_EQ(window.context, std::vector<TokenId>{0});
      } else {
        // What is seen is what stands in front, as much as fits.
        EXPECT_EQ(window.context.size() + window.continuation.size(), 9U);
        EXPECT_TRUE(std::equal(window.context.rbegin(), window.context.rend(), predicted.rbegin()));
      }
      predicted.insert(predicted.end(), window.continuation.begin(), window.continuation.end());
    }
    EXPECT_EQ(predicted, page);
  }
}

TEST(RollingLikelihood, ShortPagesAreOneRequest) {
  const Decoder model = random_decoder(tiny_config());
  RandomStream stream(8, "page");
  const std::vector<std::vector<TokenId>> pages{
      random_tokens(stream, 12), {}, random_tokens(stream, 20)};
  const std::vector<double> found =
      rolling_log_likelihoods(model, pages, 0, {.max_length = 16}, silent_reporter());
  EXPECT_NEAR(found[0], oracle(model, {{0}, pages[0]}, 16).log_likelihood, 1e-3);
  EXPECT_EQ(found[1], 0);
  const std::vector<LikelihoodRequest> windows = rolling_requests(pages[2], 0, 16);
  ASSERT_EQ(windows.size(), 2U);
  EXPECT_NEAR(
      found[2],
      oracle(model, windows[0], 16).log_likelihood + oracle(model, windows[1], 16).log_likelihood,
      1e-3);
}

}  // namespace
}  // namespace espalier
