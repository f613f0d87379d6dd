// SGD against its formula in float64, step by step.
#include "espalier/train/sgd.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

namespace espalier {
namespace {

struct Case {
  SgdOptions options;
  const char* name;
};

class SgdTest : public testing::TestWithParam<Case> {};

TEST_P(SgdTest, FollowsTheFormula) {
  const SgdOptions o = GetParam().options;
  const at::Tensor start = at::linspace(-1, 1, 24), gradient = at::linspace(0.3f, -0.2f, 24);
  at::Tensor matrix = start.clone().view({4, 6}), vector = start.clone();
  Sgd optimizer({matrix, vector}, o);
  at::Tensor p = start.to(at::kDouble), q = p.clone(), bp = at::zeros_like(p), bq = bp.clone();
  const auto expected = [&](at::Tensor& x, at::Tensor& b, const at::Tensor& g, double decay,
                            double lr) {
    const at::Tensor d = g + decay * x;
    b = o.momentum * b + d;
    x = x - lr * (o.nesterov ? d + o.momentum * b : b);
  };
  for (int t = 1; t <= 6; ++t) {
    const double lr = 0.05 * t;
    const at::Tensor g = gradient * t;
    optimizer.step({g.view({4, 6}), g}, lr);
    expected(p, bp, g.to(at::kDouble), o.weight_decay, lr);
    expected(q, bq, g.to(at::kDouble), o.decay_vectors ? o.weight_decay : 0, lr);
  }
  EXPECT_LT((matrix.flatten() - p).abs().max().item<double>(), 1e-5);
  EXPECT_LT((vector - q).abs().max().item<double>(), 1e-5);
  EXPECT_EQ(optimizer.momenta().size(), o.momentum > 0 ? 2u : 0u);
}

INSTANTIATE_TEST_SUITE_P(
    All, SgdTest,
    testing::Values(Case{{.momentum = 0}, "Plain"},
                    Case{{.momentum = 0.9, .weight_decay = 0.1}, "Momentum"},
                    Case{{.momentum = 0.8, .nesterov = true, .weight_decay = 0.05}, "Nesterov"},
                    Case{{.momentum = 0.9, .weight_decay = 0.5, .decay_vectors = false},
                         "MatricesOnlyDecay"}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(Sgd, TakesTheRateAsATensor) {
  const at::Tensor gradient = at::linspace(-1, 1, 6);
  at::Tensor a = at::ones({6}), b = at::ones({6});
  Sgd first({a}, {.weight_decay = 0.1}), second({b}, {.weight_decay = 0.1});
  for (const double lr : {0.1, 0.03}) {
    first.step({gradient}, lr);
    second.step({gradient}, at::scalar_tensor(lr, at::kDouble));
  }
  EXPECT_TRUE(at::equal(a, b));
}

TEST(Sgd, TakesGradientsInAnyLayout) {
  const at::Tensor gradient = at::arange(12, at::kFloat).view({3, 4}) / 12 - 0.4;
  at::Tensor a = at::ones({3, 4}), b = at::ones({3, 4});
  Sgd first({a}, {}), second({b}, {});
  first.step({gradient}, 0.1);
  second.step({gradient.t().contiguous().t()}, 0.1);
  EXPECT_TRUE(at::equal(a, b));
}

}  // namespace
}  // namespace espalier
