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

TEST(Likelihood, EqualsOneRequestAtATime) {
  const Decoder model = random_decoder(tiny_config());
  const std::vector<LikelihoodRequest> requests = items(1, 40);
  const std::vector<Likelihood> found = run(model, requests, {.batch_tokens = 100});
  ASSERT_EQ(found.size(), requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const Expected expected = oracle(model, requests[i], 2048);
    EXPECT_NEAR(found[i].log_likelihood, expected.log_likelihood,
                1e-5 * std::abs(expected.log_likelihood))
        << i;
    EXPECT_EQ(found[i].greedy, expected.greedy) << i;
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

TEST(Likelihood, AnyOrderBatchAndCompanyGiveTheSameBits) {
  const Decoder model = random_decoder(tiny_config());
  const std::vector<LikelihoodRequest> requests = items(2, 30);
  const std::vector<Likelihood> expected = run(model, requests);
  for (const std::int64_t batch : {1, 37, 5000}) {
    std::vector<std::size_t> order(requests.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = (i * 7 + 3) % order.size();
    std::ranges::sort(order);
    order.erase(std::unique(order.begin(), order.end()), order.end());
    std::ranges::reverse(order);
    order.resize(order.size() * 2 / 3);  // some choices lose their neighbours
    std::vector<LikelihoodRequest> some;
    for (const std::size_t i : order) some.push_back(requests[i]);
    const std::vector<Likelihood> found = run(model, some, {.batch_tokens = batch});
    for (std::size_t i = 0; i < order.size(); ++i) {
      EXPECT_EQ(found[i].log_likelihood, expected[order[i]].log_likelihood)
          << "batch " << batch << ", request " << order[i];
    }
  }
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
