// AdamW against torch.optim.AdamW (numbers from tests/fixtures/make_train_numbers.py) and against
// the formula in float64.
#include "espalier/train/adamw.h"

#include <cmath>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

namespace espalier {
namespace {

TEST(AdamW, EqualsTorchOptim) {
  at::Tensor matrix = at::tensor({0.5f, -1.0f, 2.0f, 0.25f}).view({2, 2});
  at::Tensor vector = at::tensor({1.0f, -0.5f});
  AdamW optimizer({matrix, vector}, {0.9, 0.95, 1e-8, 0.1});
  const std::vector<double> rates{0.1, 0.05, 0.02};
  const float expected[3][6] = {
      {0.395000011f, -0.889999986f, 1.88f, 0.147499993f, 1.10000002f, -0.600000024f},
      {0.345125735f, -0.837650657f, 1.82270074f, 0.0988631994f, 1.14696467f, -0.646964669f},
      {0.325545281f, -0.817085147f, 1.8001653f, 0.0797752813f, 1.16472018f, -0.664720118f}};
  for (int step = 0; step < 3; ++step) {
    const at::Tensor matrix_gradient =
        at::tensor({0.1f, -0.2f, 0.3f, 0.4f}).view({2, 2}) * (step + 1);
    const at::Tensor vector_gradient = at::tensor({-0.05f, 0.5f}) / (step + 1);
    optimizer.step({matrix_gradient, vector_gradient}, rates[static_cast<std::size_t>(step)]);
    const at::Tensor all = at::cat({matrix.flatten(), vector});
    for (int i = 0; i < 6; ++i) {
      EXPECT_NEAR(all[i].item<float>(), expected[step][i], 2e-7)
          << "step " << step + 1 << ", element " << i;
    }
  }
  EXPECT_EQ(optimizer.steps(), 3);
}

TEST(AdamW, FollowsTheFormulaAndDecaysMatricesOnly) {
  const at::Tensor start = at::linspace(-1, 1, 37), gradient = at::linspace(0.3f, -0.2f, 37);
  at::Tensor matrix = start.clone().view({1, 37}), vector = start.clone();
  AdamW optimizer({matrix, vector}, {0.8, 0.9, 1e-3, 0.5});
  at::Tensor p = start.to(at::kDouble), q = p.clone(), m = at::zeros_like(p), v = at::zeros_like(p);
  const at::Tensor g = gradient.to(at::kDouble);
  for (int t = 1; t <= 5; ++t) {
    const double lr = 0.01 * t;
    optimizer.step({gradient.view({1, 37}), gradient}, lr);
    m = 0.8 * m + 0.2 * g;
    v = 0.9 * v + 0.1 * g * g;
    const at::Tensor update =
        lr * (m / (1 - std::pow(0.8, t))) / ((v / (1 - std::pow(0.9, t))).sqrt() + 1e-3);
    p = p * (1 - lr * 0.5) - update;
    q = q - update;
  }
  EXPECT_LT((matrix.flatten() - p).abs().max().item<double>(), 1e-6);
  EXPECT_LT((vector - q).abs().max().item<double>(), 1e-6);
}

TEST(AdamW, TakesGradientsInAnyLayout) {
  const at::Tensor gradient = at::arange(12, at::kFloat).view({3, 4}) / 12 - 0.4;
  at::Tensor a = at::ones({3, 4}), b = at::ones({3, 4});
  AdamW first({a}, {}), second({b}, {});
  first.step({gradient}, 0.1);
  second.step({gradient.t().contiguous().t()}, 0.1);
  EXPECT_TRUE(at::equal(a, b));
}

TEST(AdamW, TakesTheRateAsATensorAndCountsOnTheDevice) {
  const at::Tensor gradient = at::linspace(-1, 1, 6);
  at::Tensor a = at::ones({6}), b = at::ones({6});
  AdamW first({a}, {}), second({b}, {});
  for (const double lr : {0.1, 0.03}) {
    first.step({gradient}, lr);
    second.step({gradient}, at::scalar_tensor(lr, at::kDouble));
  }
  EXPECT_TRUE(at::equal(a, b));
  EXPECT_EQ(second.steps(), 2);
  second.set_steps(9);
  EXPECT_EQ(second.steps(), 9);
}

TEST(AdamW, WalksMatchingMemory) {
  at::Tensor planes = at::ones({2, 3, 2, 2}),
             last = planes.contiguous(at::MemoryFormat::ChannelsLast).clone();
  const at::Tensor gradient = at::linspace(-1, 1, 24).view({2, 3, 2, 2});
  AdamW first({planes}, {}), second({last}, {});
  first.step({gradient}, 0.1);
  second.step({gradient}, 0.1);
  EXPECT_TRUE(at::equal(planes, last));
}

}  // namespace
}  // namespace espalier
