// Fused head and loss against whole logits in float64: values, masks, invariance, gradients, bad
// targets.
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <cmath>

#include <gtest/gtest.h>

#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

at::Tensor random_targets(std::int64_t rows, std::int64_t vocab) {
  return at::randint(vocab, {rows}, at::kLong);
}

TEST(LinearNllTest, HandComputed) {
  // Logits (0, ln 3): probabilities 1/4, 3/4.
  const at::Tensor hidden = at::ones({2, 1}),
                   weight = at::tensor({0.0f, std::log(3.0f)}).unsqueeze(1);
  const at::Tensor nll = linear_nll(hidden, weight, at::tensor({0, 1}, at::kLong));
  EXPECT_NEAR(nll[0].item<float>(), std::log(4.0f), 1e-6);
  EXPECT_NEAR(nll[1].item<float>(), std::log(4.0f / 3), 1e-6);
}

TEST(LinearNllTest, EqualsWholeLogitsAcrossChunkBorders) {
  at::manual_seed(5);
  for (const auto& [rows, vocab] :
       {std::pair{0, 10}, {1, 1}, {3, 17}, {20, 4096}, {513, 4097}, {600, 9001}}) {
    const at::Tensor hidden = at::randn({rows, 24}), weight = at::randn({vocab, 24}) * 2,
                     targets = random_targets(rows, vocab);
    EXPECT_TRUE(at::allclose(linear_nll(hidden, weight, targets),
                             linear_nll_reference(hidden, weight, targets), 1e-5, 2e-5))
        << rows << " " << vocab;
  }
}

TEST(LinearNllTest, IgnoredRowsAreZeroAndBiasCounts) {
  const at::Tensor hidden = at::randn({6, 8}), weight = at::randn({30, 8}), bias = at::randn({30});
  at::Tensor targets = random_targets(6, 30);
  targets[1] = -100;
  targets[5] = -100;
  const at::Tensor nll = linear_nll(hidden, weight, targets, bias);
  EXPECT_EQ(nll[1].item<float>(), 0.0f);
  EXPECT_EQ(nll[5].item<float>(), 0.0f);
  const at::Tensor extended = linear_nll_reference(
      at::cat({hidden, at::ones({6, 1})}, 1), at::cat({weight, bias.unsqueeze(1)}, 1), targets);
  EXPECT_TRUE(at::allclose(nll, extended, 1e-5, 1e-5));
}

TEST(LinearNllTest, HugeLogitsDoNotOverflow) {
  const at::Tensor hidden = at::full({9, 1}, 1000.0),
                   weight = at::tensor({1.0f, -1.0f, 0.5f}).unsqueeze(1);
  const at::Tensor nll =
      linear_nll(hidden, weight, at::tensor({0, 1, 2, 0, 1, 2, 0, 1, 2}, at::kLong));
  EXPECT_EQ(nll[0].item<float>(), 0.0f);
  EXPECT_EQ(nll[1].item<float>(), 2000.0f);
  EXPECT_EQ(nll[2].item<float>(), 500.0f);
}

TEST(LinearNllTest, RowsKeepTheirBitsWhateverTheirNumber) {
  const at::Tensor hidden = at::randn({700, 64}), weight = at::randn({5000, 64}),
                   targets = random_targets(700, 5000);
  const at::Tensor all = linear_nll(hidden, weight, targets);
  for (const std::int64_t rows : {8, 40, 128, 300, 512, 513}) {
    EXPECT_TRUE(
        linear_nll(hidden.narrow(0, 700 - rows, rows), weight, targets.narrow(0, 700 - rows, rows))
            .equal(all.narrow(0, 700 - rows, rows)))
        << rows;
  }
}

TEST(LinearNllTest, Bfloat16IsCloseToFloat) {
  const at::Tensor hidden = at::randn({40, 32}).to(at::kBFloat16),
                   weight = at::randn({300, 32}).to(at::kBFloat16),
                   targets = random_targets(40, 300);
  const at::Tensor nll = linear_nll(hidden, weight, targets);
  EXPECT_EQ(nll.scalar_type(), at::kFloat);
  // Logits of size up to 20 are rounded to 8 bits: 20 / 256.
  EXPECT_TRUE(at::allclose(nll, linear_nll_reference(hidden, weight, targets), 0, 0.1));
}

TEST(LinearNllTest, TargetOutsideTheVocabularyIsNamed) {
  try {
    linear_nll(at::ones({2, 4}), at::ones({10, 4}), at::tensor({3, 10}, at::kLong));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(error.to_string().find("token id 10 is outside the vocabulary of 10"),
              std::string::npos)
        << error.to_string();
    EXPECT_FALSE(error.hint_text().empty());
  }
}

TEST(LinearCrossEntropyTest, ValueAndGradientsEqualWholeLogits) {
  at::manual_seed(6);
  for (const auto& [rows, vocab] : {std::pair{5, 11}, {130, 600}, {600, 4500}}) {
    at::Tensor targets = random_targets(rows, vocab);
    targets.narrow(0, 0, rows / 3).fill_(-100);
    const double scale = 1.0 / static_cast<double>(rows - rows / 3);
    const at::Tensor h = at::randn({rows, 20}), w = at::randn({vocab, 20});
    const at::Tensor hf = h.clone().requires_grad_(), wf = w.clone().requires_grad_();
    const at::Tensor hd = h.to(at::kDouble).requires_grad_(),
                     wd = w.to(at::kDouble).requires_grad_();
    const at::Tensor loss = linear_cross_entropy(hf, wf, targets, scale);
    const at::Tensor exact = at::cross_entropy_loss(at::matmul(hd, wd.t()), targets);
    EXPECT_NEAR(loss.item<float>(), exact.item<double>(), 1e-5 * exact.item<double>());
    const auto ours = torch::autograd::grad({loss * 3}, {hf, wf});
    const auto theirs = torch::autograd::grad({exact * 3}, {hd, wd});
    EXPECT_TRUE(at::allclose(ours[0].to(at::kDouble), theirs[0], 1e-4, 1e-7)) << rows;
    EXPECT_TRUE(at::allclose(ours[1].to(at::kDouble), theirs[1], 1e-4, 1e-7)) << rows;
    EXPECT_EQ(ours[0].narrow(0, 0, rows / 3).abs().sum().item<float>(), 0.0f);
  }
}

TEST(LinearCrossEntropyTest, OneFrozenArgument) {
  const at::Tensor h = at::randn({10, 6}), w = at::randn({15, 6}), targets = random_targets(10, 15);
  const at::Tensor hg = h.clone().requires_grad_(), wg = w.clone().requires_grad_();
  const auto both = torch::autograd::grad({linear_cross_entropy(hg, wg, targets, 0.1)}, {hg, wg});
  EXPECT_TRUE(
      torch::autograd::grad({linear_cross_entropy(hg, w, targets, 0.1)}, {hg})[0].equal(both[0]));
  EXPECT_TRUE(
      torch::autograd::grad({linear_cross_entropy(h, wg, targets, 0.1)}, {wg})[0].equal(both[1]));
  EXPECT_FALSE(linear_cross_entropy(h, w, targets, 0.1).requires_grad());
  EXPECT_NEAR(linear_cross_entropy(h, w, targets, 0.1).item<float>(),
              linear_cross_entropy(hg, w, targets, 0.1).item<float>(), 1e-6);
}

TEST(LinearCrossEntropyTest, NothingToPredictIsZero) {
  const at::Tensor h = at::randn({4, 6}).requires_grad_(), w = at::randn({15, 6});
  const at::Tensor loss = linear_cross_entropy(h, w, at::full({4}, -100, at::kLong), 1.0);
  EXPECT_EQ(loss.item<float>(), 0.0f);
  EXPECT_EQ(torch::autograd::grad({loss}, {h})[0].abs().sum().item<float>(), 0.0f);
}

TEST(LinearCrossEntropyTest, SoftcapOfTheDefinition) {
  const at::Tensor hidden = at::randn({11, 16}) * 2, weight = at::randn({5000, 16}),
                   targets = at::randint(5000, {11}, at::kLong);
  targets[3] = -100;
  const double cap = 5;
  const auto definition = [&](const at::Tensor& h, const at::Tensor& w) {
    const at::Tensor logits = at::tanh(at::matmul(h, w.t()) / cap) * cap;
    return at::cross_entropy_loss(logits, targets, {}, at::Reduction::None, -100);
  };
  const at::Tensor nll = linear_nll(hidden, weight, targets, std::nullopt, cap),
                   exact = definition(hidden.to(at::kDouble), weight.to(at::kDouble));
  EXPECT_TRUE(at::allclose(nll.to(at::kDouble), exact, 1e-5, 1e-5));
  EXPECT_FALSE(at::allclose(nll, linear_nll(hidden, weight, targets), 1e-2, 1e-2));
  const std::vector<at::Tensor> in{hidden.clone().requires_grad_(),
                                   weight.clone().requires_grad_()};
  const std::vector<at::Tensor> wide{hidden.to(at::kDouble).requires_grad_(),
                                     weight.to(at::kDouble).requires_grad_()};
  const at::Tensor loss = linear_cross_entropy(in[0], in[1], targets, 0.1, cap);
  EXPECT_NEAR(loss.item<double>(), exact.sum().item<double>() * 0.1, 1e-4);
  const auto ours = torch::autograd::grad({loss}, in),
             theirs = torch::autograd::grad({definition(wide[0], wide[1]).sum() * 0.1}, wide);
  for (std::size_t i = 0; i < 2; ++i)
    EXPECT_TRUE(at::allclose(ours[i].to(at::kDouble), theirs[i], 1e-4, 1e-6)) << i;
}

}  // namespace
}  // namespace espalier
