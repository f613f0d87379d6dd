// scores.json and block_order.csv: round trips, orders as others publish them, refusals, hostile
// input.
#include "espalier/methods/layer_pruning/score_files.h"

#include <cmath>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"

#include "tests/support/tiny_model.h"

namespace espalier::layer_pruning {
namespace {

using testing_support::TemporaryFolder;
using Layers = std::vector<std::int64_t>;

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

LayerScores made_up() {
  LayerScores scores;
  scores.layers = 6;
  scores.metrics["bi"] = {0.9, 0.3, 0.1, 0.1, 0.2, 0.5};
  const double nan = std::nan("");
  scores.metrics["angular"] = {0.4, 0.3, 0.2, 0.25, nan, nan};  // runs of 3
  scores.metrics["cos_block"] = {0.4, 0.3, 0.2, 0.25, 0.5, nan};
  scores.metrics["sleb"] = {5, 1, 3, 0, 2, 4};
  scores.greedy.removed = {3, 1};
  scores.greedy.perplexity = {10, 12};
  scores.dense_perplexity = 36.5;
  scores.cka = at::rand({6, 6}, at::kDouble);
  scores.cka[0][1] = nan;
  return scores;
}

// Published orders, least important first (paper's code, Llama-3.1-8B-Instruct, taylor; Shortened
// LLaMA, Llama-3-8B, perplexity).
constexpr const char* kTaylor =
    "26,25,24,28,27,23,29,22,20,21,19,18,30,17,13,16,14,15,12,10,11,9,8,7,31,6,5,0,4,2,3,1\n";
constexpr const char* kPpl =
    "8,23,9,11,10,25,26,12,22,19,24,14,7,21,3,15,18,4,28,13,16,20,17,27,6,5,29,2,30,31,1,0\n";

TEST(ScoresJson, RoundTrip) {
  const LayerScores scores = made_up();
  const std::string text = scores_to_json(scores, "a/model", {"text.txt", "abc", 10, 128, 42});
  EXPECT_TRUE(has(text, "\"n_layers\": 6"));
  const LayerScores back = scores_from_json(text, "scores.json");
  EXPECT_EQ(back.metrics.at("bi"), scores.metrics.at("bi"));
  EXPECT_TRUE(std::isnan(back.metrics.at("angular")[4]));
  EXPECT_EQ(back.dense_perplexity, 36.5);
  EXPECT_TRUE(at::equal(at::nan_to_num(back.cka, 9), at::nan_to_num(scores.cka, 9)));
  EXPECT_EQ(select_layers(back, "angular", 3), (Layers{2, 3, 4}));
  EXPECT_EQ(select_layers(back, "cos_block", 2), (Layers{2, 3}));
  EXPECT_EQ(select_layers(back, "sleb", 2), (Layers{1, 3}));
}

TEST(ScoresJson, Refusals) {
  const auto refusal = [](const char* bad) {
    return error_of([&] { scores_from_json(bad, "scores.json"); });
  };
  EXPECT_TRUE(has(refusal("{}").hint_text(), "espalier redundancy"));
  EXPECT_TRUE(has(refusal(R"({"n_layers": 3, "metrics": {"bi": [1, 2]}})").message(),
                  "metrics.bi has 2 entries, but n_layers is 3"));
  EXPECT_TRUE(
      has(refusal(R"({"n_layers": 1, "metrics": {"bi": ["x"]}})").message(), "expected numbers"));
  EXPECT_TRUE(
      has(refusal(R"({"n_layers": 1, "metrics": {"bi": [null]}})").message(), "without a number"));
  EXPECT_TRUE(
      has(refusal(R"({"n_layers": 999999999999, "metrics": {}})").message(), "n_layers is"));
  EXPECT_TRUE(
      has(refusal(R"({"n_layers": 3, "metrics": {}, "sleb": {"removed": [1, 1]}})").message(),
          "sleb.removed holds 1, expected distinct layers 0-2"));
  EXPECT_TRUE(has(refusal(R"({"n_layers": 3, "metrics": {}, "sleb": {"removed": [7]}})").message(),
                  "sleb.removed holds 7"));
  EXPECT_TRUE(
      has(refusal(R"({"n_layers": 3, "metrics": {}, "sleb": {"removed": "all"}})").message(),
          "sleb.removed is no list"));
  EXPECT_TRUE(has(refusal("[").subject(), "scores.json:1:"));
}

TEST(ScoresJson, EveryTruncationIsRefused) {
  const std::string text = scores_to_json(made_up(), "m", {"t", "s", 1, 2, 3});
  const std::size_t end = text.find_last_of('}');
  for (std::size_t length = 0; length < end; length += 7) {
    EXPECT_THROW(scores_from_json(std::string_view(text).substr(0, length), "s"), Error) << length;
  }
}

TEST(Order, PublishedOrdersAreRead) {
  const Layers taylor = order_from_csv(kTaylor, 32, "block_order.csv");
  ASSERT_EQ(taylor.size(), 32u);
  EXPECT_EQ(Layers(taylor.begin(), taylor.begin() + 4), (Layers{26, 25, 24, 28}));
  EXPECT_EQ(order_to_csv(taylor), kTaylor);
  EXPECT_EQ(order_to_csv(order_from_csv(kPpl, 32, "x")), kPpl);
}

TEST(Order, FormsThatOthersWrite) {
  for (const char* text : {"3,1,2", "3, 1, 2\r\n", "[3, 1, 2]", "3\n1\n2\n",
                           "\xEF\xBB\xBF"
                           "3 1 2"})
    EXPECT_EQ(order_from_csv(text, 4, "x"), (Layers{3, 1, 2})) << text;
}

TEST(Order, Refusals) {
  const auto refusal = [](const char* bad) {
    return error_of([&] { order_from_csv(bad, 32, "order.csv"); });
  };
  EXPECT_EQ(refusal("1,2\n3,32").subject(), "order.csv:2");
  EXPECT_EQ(refusal("1,32").message(), "layer 32 is out of range; the model has layers 0-31");
  EXPECT_EQ(refusal("4,5,4").message(), "layer 4 comes twice");
  EXPECT_EQ(refusal("4,x5").message(), "`x5` is not a layer");
  EXPECT_EQ(refusal("4,-1").message(), "layer -1 is out of range; the model has layers 0-31");
  EXPECT_EQ(refusal("4,5.0").message(), "`5.0` is not a layer");
  EXPECT_EQ(refusal("99999999999999999999").message(), "`99999999999999999999` is not a layer");
  EXPECT_EQ(refusal(" \n,,\n").message(), "holds no layers");
  EXPECT_EQ(refusal("").kind(), ErrorKind::kInput);
  EXPECT_TRUE(has(refusal("x").hint_text(), "26,25,24,28"));
  EXPECT_LT(refusal(std::string(5000, 'a').c_str()).message().size(), 100u);
}

TEST(ReadScores, EitherFormIsToldApart) {
  TemporaryFolder dir;
  write_file_atomically(dir / "o.csv", kTaylor);
  const LayerScores order = read_scores(dir / "o.csv", 32);
  EXPECT_EQ(select_layers(order, kOrderMetric, 3), (Layers{24, 25, 26}));
  // An order of some layers: the others never go.
  write_file_atomically(dir / "part.csv", "3,1\n");
  const LayerScores part = read_scores(dir / "part.csv", 6);
  EXPECT_EQ(select_layers(part, kOrderMetric, 2), (Layers{1, 3}));
  EXPECT_EQ(error_of([&] { select_layers(part, kOrderMetric, 3); }).message(),
            "lists fewer layers: of 6 layers at most 2 can go, 3 are asked for");
  write_file_atomically(dir / "s.json", scores_to_json(made_up(), "m", {}));
  EXPECT_TRUE(read_scores(dir / "s.json", 6).metrics.contains("bi"));
  const Error depth = error_of([&] { read_scores(dir / "s.json", 7); });
  EXPECT_EQ(depth.message(), "holds scores of 6 layers, but the model has 7");
  EXPECT_TRUE(has(depth.hint_text(), "espalier redundancy"));
  EXPECT_EQ(error_of([&] { read_scores(dir / "absent", 7); }).kind(), ErrorKind::kInput);
}

}  // namespace
}  // namespace espalier::layer_pruning
