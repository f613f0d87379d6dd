// The sweep against its definitions: leave-one-out by running each candidate, hidden-state scores
// from explicit states, magnitudes by summing files; selection, order and scores.json.
#include "espalier/methods/layer_pruning/scores.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/methods/layer_pruning/score_files.h"
#include "espalier/similarity/similarity.h"

#include "tests/support/tiny_model.h"

namespace espalier::layer_pruning {
namespace {

using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;
using Layers = std::vector<std::int64_t>;

at::Tensor token_ids(std::int64_t samples, std::int64_t tokens, std::int64_t vocab,
                     std::uint64_t seed = 7) {
  RandomStream stream(seed);
  at::Tensor ids = at::empty({samples, tokens}, at::kLong);
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    ids.data_ptr<std::int64_t>()[i] =
        static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(vocab)));
  }
  return ids;
}

Decoder load(const std::filesystem::path& path, Residency residency = Residency::kResident) {
  return Decoder::load(path, at::kFloat, at::kCPU, residency);
}

template <class Fn>
Error error_of(Fn&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorKind::kInternal, "", "");
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

struct CountingReporter final : Reporter {
  std::vector<std::string> warnings;
  void log(LogLevel level, std::string_view message) override {
    if (level == LogLevel::kWarn) warnings.emplace_back(message);
  }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    return silent_reporter().phase(name, total, unit);
  }
};

/// Metrics in the order given; calibrated ones on `ids`.
LayerScores scored(const Decoder& model, const at::Tensor& ids, std::vector<std::string> metrics,
                   std::int64_t remove = 2) {
  ScoreOptions options;
  options.metrics = std::move(metrics);
  options.remove = remove;
  return score_layers(model, ids, options, silent_reporter());
}

TEST(Sweep, EqualsLeaveOneOutOfEveryCandidate) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 5}.write_folder(dir / "model");
  const Decoder model = load(dir / "model");
  // 42 x 64 tokens: each stream is run in more than one chunk.
  for (const auto& [samples, tokens] : {std::pair<std::int64_t, std::int64_t>{3, 10}, {42, 64}}) {
    const at::Tensor ids = token_ids(samples, tokens, 61);
    const LayerScores scores = scored(model, ids, {"ppl"});
    EXPECT_EQ(scores.block_forwards, 5 * 6 / 2);
    std::int64_t naive_forwards = 0;
    const auto naive = leave_one_out_naive(model, ids, &naive_forwards);
    EXPECT_EQ(naive_forwards, 5 * 4);
    for (std::size_t layer = 0; layer < 5; ++layer) {
      EXPECT_NEAR(scores.metrics.at("ppl")[layer] / naive[layer], 1, 1e-5) << layer;
      EXPECT_GT(std::abs(naive[layer] / scores.dense_perplexity - 1), 1e-4)
          << "a layer without effect tests nothing";
    }
  }
}

TEST(Sweep, DensePerplexityIsThatOfWholeLogits) {
  TemporaryFolder dir;
  TinyDecoder{.tied = true, .qwen2 = true}.write_folder(dir / "model");
  const Decoder model = load(dir / "model");
  const at::Tensor ids = token_ids(4, 12, 61);
  const at::Tensor logits = model.forward(ids).to(at::kDouble).narrow(1, 0, 11);
  const at::Tensor picked =
      at::log_softmax(logits, -1).gather(2, ids.narrow(1, 1, 11).unsqueeze(-1));
  EXPECT_NEAR(
      scored(model, ids, {"ppl"}).dense_perplexity / std::exp(-picked.mean().item<double>()), 1,
      1e-5);
}

TEST(Sweep, StreamedModelsGiveTheSameBits) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 4}.write_folder(dir / "model", 2);
  const at::Tensor ids = token_ids(4, 16, 61);
  const std::vector<std::string> all = metric_names();
  const LayerScores resident = scored(load(dir / "model"), ids, all);
  const LayerScores streamed = scored(load(dir / "model", Residency::kStreamed), ids, all);
  for (const std::string& metric : all) {
    for (std::size_t layer = 0; layer < 4; ++layer) {
      const double a = resident.metrics.at(metric)[layer], b = streamed.metrics.at(metric)[layer];
      EXPECT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << metric << " " << layer;
    }
  }
  EXPECT_EQ(resident.block_forwards, 10);
}

TEST(Sglp, SegmentsByCkaAndKeepsTheSteepest) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 7}.write_folder(dir / "model", 3);
  const Decoder model = load(dir / "model");
  LayerScores scores = scored(model, token_ids(4, 16, 61), {"sglp", "gradnorm"}, 2);
  EXPECT_EQ(scores.metrics.at("sglp"), scores.metrics.at("gradnorm"));
  ASSERT_TRUE(scores.cka.defined());
  EXPECT_FALSE(scores.metrics.contains("cka_adj"));
  const SegmentPlan plan = plan_segments(scores.cka, scores.metrics.at("sglp"), 5, {}, {0, 1});
  EXPECT_EQ(segment_plan(scores, 2).kept, plan.kept);
  const Layers removed = select_layers(scores, "sglp", 2);
  EXPECT_EQ(removed.size(), 2u);
  EXPECT_GT(removed.front(), 1) << "layers 0 and 1 stay";
  for (const std::int64_t layer : removed) {
    EXPECT_EQ(std::count(plan.kept.begin(), plan.kept.end(), layer), 0);
  }
  scores.segments.budgets = {7};
  EXPECT_EQ(error_of([&] { select_layers(scores, "sglp", 2); }).subject(), "--segment-keep");
  scores.cka = at::Tensor();
  const Error no_matrix = error_of([&] { select_layers(scores, "sglp", 2); });
  EXPECT_TRUE(has(no_matrix.message(), "without the matrix `cka`"));
  EXPECT_FALSE(no_matrix.hint_text().empty());
}

TEST(Sweep, HiddenStateScoresFollowTheirDefinitions) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 4}.write_folder(dir / "model");
  const Decoder model = load(dir / "model");
  const at::Tensor ids = token_ids(6, 9, 61);
  std::vector<at::Tensor> states{model.embed(ids)};
  for (std::int64_t layer = 0; layer < 4; ++layer)
    states.push_back(model.run_layer(states.back(), layer, model.context(9)));
  const LayerScores scores = scored(model, ids, {"bi", "angular", "cka_adj"}, 3);
  EXPECT_EQ(scores.block_forwards, 4);  // the base stream alone
  EXPECT_EQ(scores.dense_perplexity, 0);
  const auto features = [&](std::size_t state) {
    const at::Tensor x = states[state].narrow(1, 1, 8).reshape({-1, 32}).to(at::kDouble);
    return (x / x.square().mean(-1, true).sqrt()).to(at::kFloat);
  };
  for (std::size_t layer = 0; layer < 4; ++layer) {
    EXPECT_NEAR(scores.metrics.at("bi")[layer], block_influence(states[layer], states[layer + 1]),
                1e-12);
    EXPECT_NEAR(scores.metrics.at("cka_adj")[layer],
                1 - linear_cka(features(layer), features(layer + 1), CkaEstimator::kUnbiased),
                1e-12);
    const double angular = scores.metrics.at("angular")[layer];
    if (layer + 3 > 4) {
      EXPECT_TRUE(std::isnan(angular));
    } else {
      EXPECT_NEAR(angular,
                  angular_distance(states[layer].select(1, 8), states[layer + 3].select(1, 8)),
                  1e-12);
    }
  }
  EXPECT_EQ(scores.cka.sizes(), at::IntArrayRef({4, 4}));
  EXPECT_NEAR(scores.cka[0][3].item<double>(),
              linear_cka(features(1), features(4), CkaEstimator::kUnbiased), 1e-12);
}

TEST(Sweep, MagnitudesCountWeightsAndNormsButNoBiases) {
  TemporaryFolder dir;
  const TinyDecoder tiny{.layers = 2, .qwen2 = true};
  tiny.write_folder(dir / "model");
  for (const Residency residency : {Residency::kResident, Residency::kStreamed}) {
    const LayerScores scores =
        scored(load(dir / "model", residency), at::Tensor(), {"mag_l1", "mag_l2", "reverse"});
    EXPECT_EQ(scores.block_forwards, 0);
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      double l1 = 0, l2 = 0;
      for (const TensorSpec& spec : layer_tensor_specs(tiny.config())) {
        if (spec.name.ends_with(".bias")) continue;
        for (const float w : tiny.values({layer_prefix(layer) + spec.name, spec.shape})) {
          l1 += std::abs(static_cast<double>(w));
          l2 += static_cast<double>(w) * static_cast<double>(w);
        }
      }
      EXPECT_NEAR(scores.metrics.at("mag_l1")[static_cast<std::size_t>(layer)] / l1, 1, 1e-12);
      EXPECT_NEAR(scores.metrics.at("mag_l2")[static_cast<std::size_t>(layer)] / l2, 1, 1e-12);
    }
  }
}

TEST(Sweep, DegenerateLayersCountZeroAndAreNamed) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 3}.write_folder(dir / "model");
  CountingReporter reporter;
  ScoreOptions options;
  options.metrics = {"cka_adj", "bi"};
  // One token everywhere: every position has the same hidden state.
  const LayerScores scores =
      score_layers(load(dir / "model"), at::full({2, 8}, 5, at::kLong), options, reporter);
  EXPECT_EQ(scores.metrics.at("cka_adj"), (std::vector<double>{1, 1, 1}));
  EXPECT_TRUE(std::isnan(scores.cka[0][1].item<double>()));
  ASSERT_EQ(reporter.warnings.size(), 4u);
  EXPECT_TRUE(has(reporter.warnings[1], "degenerate layer 0"));
  EXPECT_EQ(msrs(scores.cka).value, 0);
}

TEST(Sweep, RefusalsSayWhatIsMissing) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 3}.write_folder(dir / "model");
  const Decoder model = load(dir / "model");
  EXPECT_TRUE(
      has(error_of([&] { scored(model, at::Tensor(), {"bi"}); }).hint_text(), "--calibration"));
  EXPECT_TRUE(has(error_of([&] { scored(model, token_ids(2, 8, 61), {"nonsense"}); }).hint_text(),
                  "cka_adj"));
  EXPECT_TRUE(has(error_of([&] { scored(model, token_ids(2, 8, 61), {"angular"}, 3); }).message(),
                  "1 to 2, found 3"));
  EXPECT_TRUE(has(error_of([&] { scored(model, token_ids(1, 4, 61), {"cka_adj"}); }).message(),
                  "leave 3 rows"));
  EXPECT_TRUE(
      has(error_of([&] { scored(model, token_ids(2, 1, 61), {"ppl"}); }).message(), "at least 2"));
  struct StopAtOnce final : StopToken {
    bool stop_requested() const override { return true; }
  };
  EXPECT_THROW(score_layers(model, token_ids(2, 8, 61), {.metrics = {"bi"}}, silent_reporter(),
                            StopAtOnce()),
               Interrupted);
  // A NaN weight in layer 1.
  Decoder broken = model.with_layers({0, 1, 2});
  broken.block(1).mlp.up_proj.weight =
      at::full_like(broken.block(1).mlp.up_proj.weight, std::nan(""));
  const Error nan = error_of([&] { scored(broken, token_ids(2, 8, 61), {"bi"}); });
  EXPECT_EQ(nan.kind(), ErrorKind::kInput);
  EXPECT_TRUE(has(nan.message(), "layer 1 is nan")) << nan.message();
}

LayerScores made_up() {
  LayerScores scores;
  scores.layers = 6;
  scores.metrics["bi"] = {0.9, 0.3, 0.1, 0.1, 0.2, 0.5};
  scores.metrics["reverse"] = {5, 4, 3, 2, 1, 0};
  const double nan = std::nan("");
  scores.metrics["angular"] = {0.4, 0.3, 0.2, 0.25, nan, nan};  // runs of 3
  return scores;
}

TEST(Select, SmallestScoresTiesByIndexAndContiguousRuns) {
  const LayerScores scores = made_up();
  EXPECT_EQ(select_layers(scores, "bi", 1), (Layers{2}));
  EXPECT_EQ(select_layers(scores, "bi", 3), (Layers{2, 3, 4}));
  EXPECT_EQ(select_layers(scores, "reverse", 2), (Layers{4, 5}));
  EXPECT_EQ(select_layers(scores, "angular", 3), (Layers{2, 3, 4}));
  EXPECT_EQ(block_order(scores, "bi"), (Layers{2, 3, 4, 1, 5, 0}));
  EXPECT_EQ(block_order(scores, "angular"), (Layers{2, 3, 4, 1, 5, 0}));
  EXPECT_TRUE(has(error_of([&] { select_layers(scores, "angular", 2); }).message(),
                  "runs of 3 layers, but 2"));
  EXPECT_TRUE(has(error_of([&] { select_layers(scores, "bi", 6); }).message(), "between 1 and 5"));
  EXPECT_TRUE(
      has(error_of([&] { select_layers(scores, "ppl", 2); }).message(), "hold no values of `ppl`"));
}

TEST(Select, RandomIsAPermutationOfTheSeed) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 6}.write_folder(dir / "model");
  const Decoder model = load(dir / "model");
  ScoreOptions options;
  options.metrics = {"random"};
  const auto draw = [&](std::uint64_t seed) {
    options.seed = seed;
    return score_layers(model, {}, options, silent_reporter()).metrics.at("random");
  };
  const std::vector<double> ranks = draw(42);
  EXPECT_EQ(std::set<double>(ranks.begin(), ranks.end()).size(), 6u);
  EXPECT_EQ(draw(42), draw(42));
  EXPECT_NE(draw(42), draw(43));
}

TEST(Select, AutoMetric) {
  EXPECT_EQ(auto_metric(false, 0.25, 4096), "angular");
  EXPECT_EQ(auto_metric(true, 0.25, 4096), "reverse");
  EXPECT_EQ(auto_metric(true, 0.35, 4096), "bi");
  EXPECT_EQ(auto_metric(true, 0.25, 576), "bi");
  EXPECT_EQ(auto_metric(false, 0.25, 576, true), "sleb");
  EXPECT_EQ(auto_metric(true, 0.25, 4096, true), "reverse");
}

TEST(Select, PlusNeverTakesTheEnds) {
  // Shortened LLaMA's example: order 0,28,27,25,29,26,... of 32 layers.
  LayerScores scores;
  scores.layers = 32;
  std::vector<double> values(32, 100);
  double place = 0;
  for (const std::size_t layer : {0, 28, 27, 25, 29, 26}) values[layer] = place++;
  scores.metrics["taylor"] = scores.metrics["taylor+"] = values;
  EXPECT_EQ(select_layers(scores, "taylor", 2), (Layers{0, 28}));
  EXPECT_EQ(select_layers(scores, "taylor+", 2), (Layers{27, 28}));
  EXPECT_EQ(protected_layers("ppl+", 32), (Layers{0, 1, 2, 3, 30, 31}));
  EXPECT_EQ(protected_layers("ppl+", 5), (Layers{0, 1, 2, 3, 4}));
  const std::vector<std::int64_t> order = block_order(scores, "taylor+");
  EXPECT_EQ(Layers(order.begin(), order.begin() + 3), (Layers{28, 27, 25}));
  EXPECT_EQ(Layers(order.end() - 6, order.end()), (Layers{0, 1, 2, 3, 30, 31}));
  const Error error = error_of([&] { select_layers(scores, "taylor+", 27); });
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_EQ(error.message(),
            "never removes layers 0-3,30-31: of 32 layers at most 26 can go, 27 are asked for");
  EXPECT_TRUE(has(error.hint_text(), "--method taylor"));
}

TEST(Select, GreedyOrderIsGoodForFewerLayersOnly) {
  LayerScores scores;
  scores.layers = 6;
  scores.metrics["sleb"] = {5, 1, 3, 0, 2, 4};
  scores.greedy.removed = {3, 1};
  EXPECT_EQ(select_layers(scores, "sleb", 1), (Layers{3}));
  EXPECT_EQ(select_layers(scores, "sleb", 2), (Layers{1, 3}));
  const Error error = error_of([&] { select_layers(scores, "sleb", 3); });
  EXPECT_TRUE(has(error.message(), "searched for 2 layers, but 3"));
  EXPECT_EQ(block_order(scores, "sleb"), (Layers{3, 1, 4, 2, 0, 5}));
}

TEST(Sweep, GroupsOfSamplesGiveTheSameScores) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 4}.write_folder(dir / "model");
  const Decoder model = load(dir / "model");
  const at::Tensor ids = token_ids(5, 16, 61);
  ScoreOptions options;
  options.metrics = {"bi", "angular", "cos_block", "ppl", "ppl+", "mag_l1", "cka_adj"};
  options.remove = 2;
  const LayerScores whole = score_layers(model, ids, options, silent_reporter());
  options.memory_bytes = 1;  // one sample at a time
  const LayerScores parts = score_layers(model, ids, options, silent_reporter());
  EXPECT_EQ(parts.block_forwards, whole.block_forwards);
  EXPECT_NEAR(parts.dense_perplexity / whole.dense_perplexity, 1, 1e-6);
  for (const std::string& metric : options.metrics) {
    for (std::size_t layer = 0; layer < 4; ++layer) {
      const double a = whole.metrics.at(metric)[layer], b = parts.metrics.at(metric)[layer];
      if (std::isnan(a)) {
        EXPECT_TRUE(std::isnan(b)) << metric << " " << layer;
      } else if (metric != "cka_adj") {  // its minibatches are those of a group
        EXPECT_NEAR(b / a, 1, 1e-6) << metric << " " << layer;
      }
    }
  }
}

TEST(Sweep, GradientsSayWhatTheyNeedWhenMemoryIsShort) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 4}.write_folder(dir / "model");
  const Decoder model = load(dir / "model");
  ScoreOptions options;
  options.metrics = {"taylor"};
  options.gradient_batch = 2;
  options.memory_bytes = 5 * 2 * 16 * 32 * 4;  // the states of two samples
  const at::Tensor ids = token_ids(6, 16, 61);
  const Error error = error_of([&] { score_layers(model, ids, options, silent_reporter()); });
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
  EXPECT_TRUE(has(error.hint_text(), "--taylor-per-batch"));
  options.taylor_per_batch = true;
  EXPECT_EQ(score_layers(model, ids, options, silent_reporter()).metrics.at("taylor").size(), 4u);
}

TEST(Sweep, CosBlockIsTheMeanCosineOfARun) {
  TemporaryFolder dir;
  TinyDecoder{.layers = 5}.write_folder(dir / "model");
  const Decoder model = load(dir / "model");
  const at::Tensor ids = token_ids(3, 9, 61);
  std::vector<at::Tensor> states{model.embed(ids)};
  for (std::int64_t layer = 0; layer < 5; ++layer)
    states.push_back(model.run_layer(states.back(), layer, model.context(9)));
  for (const std::int64_t run : {1, 3, 4}) {
    const LayerScores scores = scored(model, ids, {"cos_block"}, run);
    const std::vector<double>& values = scores.metrics.at("cos_block");
    for (std::int64_t j = 0; j < 5; ++j) {
      if (j + run > 5) {
        EXPECT_TRUE(std::isnan(values[static_cast<std::size_t>(j)]));
        continue;
      }
      EXPECT_NEAR(values[static_cast<std::size_t>(j)],
                  block_influence(states[static_cast<std::size_t>(j)],
                                  states[static_cast<std::size_t>(j + run)]),
                  1e-12);
    }
    const Layers chosen = select_layers(scores, "cos_block", run);
    EXPECT_EQ(static_cast<std::int64_t>(chosen.size()), run);
    EXPECT_EQ(chosen.back() - chosen.front(), run - 1);
  }
}

}  // namespace
}  // namespace espalier::layer_pruning
