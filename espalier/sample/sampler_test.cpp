// One token: greedy ties, filters in transformers' order, frequencies, seeds, broken logits.
#include "espalier/sample/sampler.h"

#include <cmath>
#include <limits>
#include <map>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

std::map<TokenId, int> histogram(const at::Tensor& logits, const SamplingOptions& options,
                                 int draws = 4000) {
  RandomStream random(1, "test");
  std::map<TokenId, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sample_token(logits, options, random)];
  return counts;
}

at::Tensor log_of(const std::vector<float>& probabilities) {
  return at::tensor(probabilities).log();
}

TEST(SampleTokenTest, GreedyTakesTheLowestIdOfATie) {
  RandomStream random(0);
  EXPECT_EQ(sample_token(at::tensor({1.0f, 3.0f, 3.0f, -2.0f}), {}, random), 1);
  EXPECT_EQ(sample_token(at::tensor({-std::numeric_limits<float>::infinity(), -5.0f}), {}, random),
            1);
}

TEST(SampleTokenTest, FrequenciesFollowTheProbabilities) {
  SamplingOptions options;
  options.temperature = 1;
  const auto counts = histogram(log_of({0.1f, 0.2f, 0.7f}), options, 10000);
  // Three standard deviations of a binomial: 3 sqrt(10000 p (1-p)).
  EXPECT_NEAR(counts.at(0), 1000, 90);
  EXPECT_NEAR(counts.at(1), 2000, 120);
  EXPECT_NEAR(counts.at(2), 7000, 138);
}

TEST(SampleTokenTest, TemperatureSharpensAndFlattens) {
  SamplingOptions options;
  options.temperature = 0.5;  // squares the odds: 1 : 9 for probabilities 1 : 3
  EXPECT_NEAR(histogram(log_of({0.25f, 0.75f}), options, 10000).at(0), 1000, 90);
  options.temperature = 1e-6;
  EXPECT_EQ(histogram(log_of({0.4f, 0.6f}), options).size(), 1u);
}

TEST(SampleTokenTest, TopKKeepsTiesOfTheLast) {
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 2;
  const auto counts = histogram(log_of({0.5f, 0.2f, 0.2f, 0.1f}), options);
  EXPECT_EQ(counts.size(), 3u) << "a threshold cannot tell equal scores apart";
  EXPECT_FALSE(counts.contains(3));
  options.top_k = 100;
  EXPECT_EQ(histogram(log_of({0.5f, 0.2f, 0.2f, 0.1f}), options).size(), 4u);
}

TEST(SampleTokenTest, TopPKeepsTheTokenThatCrosses) {
  SamplingOptions options;
  options.temperature = 1;
  const at::Tensor logits = log_of({0.05f, 0.15f, 0.5f, 0.3f});
  const auto kept = [&](double p) {
    options.top_p = p;
    std::vector<TokenId> ids;
    for (const auto& [id, count] : histogram(logits, options)) ids.push_back(id);
    return ids;
  };
  EXPECT_EQ(kept(0.01), (std::vector<TokenId>{2}));
  EXPECT_EQ(kept(0.49), (std::vector<TokenId>{2}));
  EXPECT_EQ(kept(0.51), (std::vector<TokenId>{2, 3}));
  EXPECT_EQ(kept(0.79), (std::vector<TokenId>{2, 3}));
  EXPECT_EQ(kept(0.9), (std::vector<TokenId>{1, 2, 3}));
}

TEST(SampleTokenTest, TopPIsMeasuredAfterTopK) {
  // After top-k 2 the shares are 0.625 and 0.375, so 0.6 is reached by the first alone.
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 2;
  options.top_p = 0.6;
  EXPECT_EQ(histogram(log_of({0.05f, 0.15f, 0.5f, 0.3f}), options).size(), 1u);
}

TEST(SampleTokenTest, TheSeedDecides) {
  SamplingOptions options;
  options.temperature = 1;
  const at::Tensor logits = at::zeros({1000});
  const auto draw = [&](std::uint64_t seed) {
    RandomStream random(seed);
    std::vector<TokenId> ids;
    for (int i = 0; i < 5; ++i) ids.push_back(sample_token(logits, options, random));
    return ids;
  };
  EXPECT_EQ(draw(3), draw(3));
  EXPECT_NE(draw(3), draw(4));
}

TEST(SampleTokenTest, BrokenLogitsAreNamed) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    RandomStream random(0);
    try {
      sample_token(at::tensor({0.0f, bad}), {}, random);
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      EXPECT_NE(error.to_string().find("the score of token 1 is"), std::string::npos)
          << error.to_string();
      EXPECT_FALSE(error.hint_text().empty());
    }
  }
}

}  // namespace
}  // namespace espalier
