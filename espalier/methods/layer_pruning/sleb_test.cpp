// The greedy search against running every candidate: list, perplexities, counts, with and without
// snapshots, in groups, streamed.
#include "espalier/methods/layer_pruning/sleb.h"

#include <cmath>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"

#include "tests/support/random_decoder.h"

namespace espalier::layer_pruning {
namespace {

using testing_support::random_decoder;
using testing_support::RandomCheckpoint;
using testing_support::tiny_config;

at::Tensor some_ids(std::int64_t rows, std::int64_t tokens) {
  return at::arange(rows * tokens, at::kLong).mul(37).add(5).remainder(300).view({rows, tokens});
}

SlebResult searched(const Decoder& model, const at::Tensor& ids, SlebOptions options) {
  return sleb_greedy(model, ids, options, silent_reporter());
}

void expect_same(const SlebResult& found, const SlebResult& plain) {
  EXPECT_EQ(found.removed, plain.removed);
  EXPECT_NEAR(found.dense_perplexity / plain.dense_perplexity, 1, 1e-6);
  ASSERT_EQ(found.perplexity.size(), plain.perplexity.size());
  for (std::size_t i = 0; i < plain.perplexity.size(); ++i)
    EXPECT_NEAR(found.perplexity[i] / plain.perplexity[i], 1, 1e-6) << i;
  ASSERT_EQ(found.last_round.size(), plain.last_round.size());
  for (std::size_t i = 0; i < plain.last_round.size(); ++i) {
    EXPECT_EQ(std::isnan(found.last_round[i]), std::isnan(plain.last_round[i])) << i;
    if (!std::isnan(plain.last_round[i])) {
      EXPECT_NEAR(found.last_round[i] / plain.last_round[i], 1, 1e-6) << i;
    }
  }
  EXPECT_EQ(found.plain_forwards, plain.block_forwards);
}

TEST(Sleb, SameListAsThePlainGreedyHoweverItIsRun) {
  for (const std::uint64_t seed : {0, 1, 2}) {
    const Decoder model = random_decoder(tiny_config(10), at::kFloat, seed);
    const at::Tensor ids = some_ids(4, 16);
    const SlebResult plain = sleb_plain(model, ids, 5);
    ASSERT_EQ(plain.removed.size(), 5u);
    expect_same(searched(model, ids, {.remove = 5}), plain);
    // No snapshot fits; only a few do; one sample at a time.
    const std::int64_t state = 4 * 16 * 64 * 4;
    expect_same(searched(model, ids, {.remove = 5, .snapshot_bytes = 1}), plain);
    expect_same(searched(model, ids, {.remove = 5, .snapshot_bytes = 9 * state}), plain);
    expect_same(searched(model, ids, {.remove = 5, .stream_bytes = 1}), plain);
  }
}

TEST(Sleb, FewerBlockRunsCounted) {
  const Decoder model = random_decoder(tiny_config(24));
  const at::Tensor ids = some_ids(2, 8);
  const SlebResult shared = searched(model, ids, {.remove = 6});
  const SlebResult without = searched(model, ids, {.remove = 6, .snapshot_bytes = 1});
  EXPECT_EQ(shared.removed, without.removed);
  std::int64_t plain = 0, prefixes = 0;
  for (std::int64_t m = 24; m > 18; --m) {
    plain += (m - 2) * (m - 1);
    // Candidates at 1..m-2 run what is above them; the base runs up to the last of them.
    prefixes += (m - 2) * (m - 1) / 2 + (m - 2);
  }
  EXPECT_EQ(shared.plain_forwards, plain);
  EXPECT_EQ(without.block_forwards, prefixes + 2);  // the first round's base to its end
  EXPECT_GE(plain, 2 * shared.block_forwards) << shared.block_forwards;
}

TEST(Sleb, StreamedModelsGiveTheSameBits) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(tiny_config(6));
  const at::Tensor ids = some_ids(3, 12);
  const SlebResult a =
      searched(Decoder::load(checkpoint, at::kFloat, at::kCPU), ids, {.remove = 3});
  const SlebResult b = searched(
      Decoder::load(checkpoint, at::kFloat, at::kCPU, Residency::kStreamed), ids, {.remove = 3});
  EXPECT_EQ(a.removed, b.removed);
  EXPECT_EQ(a.perplexity, b.perplexity);
}

TEST(Sleb, EndsStayAndCountsAreChecked) {
  const Decoder model = random_decoder(tiny_config(4));
  const SlebResult all = searched(model, some_ids(2, 8), {.remove = 2});
  EXPECT_EQ(all.removed.size(), 2u);
  for (const std::int64_t layer : all.removed) EXPECT_TRUE(layer == 1 || layer == 2);
  for (const std::int64_t bad : {0, 3, 4}) {
    try {
      searched(model, some_ids(2, 8), {.remove = bad});
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_NE(std::string(error.what()).find("of 4 layers 1 to 2 can go"), std::string::npos);
    }
  }
}

TEST(Sleb, PlacesFollowTheOrder) {
  SlebResult result;
  result.removed = {3, 1};
  result.last_round = {NAN, 20, 40, NAN, 30, NAN};
  EXPECT_EQ(sleb_scores(result, 6), (std::vector<double>{5, 1, 3, 0, 2, 4}));
}

TEST(Sleb, NanIsRefused) {
  Decoder model = random_decoder(tiny_config(4));
  model.block(3).mlp.up_proj.weight =
      at::full_like(model.block(3).mlp.up_proj.weight, std::nan(""));
  EXPECT_THROW(searched(model, some_ids(2, 8), {.remove = 1}), Error);
}

}  // namespace
}  // namespace espalier::layer_pruning
