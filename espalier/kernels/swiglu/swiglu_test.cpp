// silu_mul_ against its definition, over the whole range of float32.
#include "espalier/kernels/swiglu/swiglu.h"

#include <limits>

#include <gtest/gtest.h>

#include <torch/csrc/autograd/autograd.h>

namespace espalier {
namespace {

TEST(SwigluTest, HandComputed) {
  // silu(0) = 0, silu(1) = 0.7310586, silu(-1) = -0.2689414.
  const at::Tensor y = silu_mul_(at::tensor({0.0f, 1.0f, -1.0f}), at::tensor({5.0f, 2.0f, 10.0f}));
  EXPECT_EQ(y[0].item<float>(), 0.0f);
  EXPECT_NEAR(y[1].item<float>(), 1.4621172f, 2e-6);
  EXPECT_NEAR(y[2].item<float>(), -2.6894142f, 3e-6);
}

TEST(SwigluTest, EqualsDefinitionForOddSizes) {
  at::manual_seed(3);
  for (const std::int64_t n : {0, 1, 15, 16, 33, 1000, 70001}) {
    const at::Tensor gate = at::randn({n}) * 10, up = at::randn({n});
    const at::Tensor exact = at::silu(gate.to(at::kDouble)) * up.to(at::kDouble);
    EXPECT_TRUE(at::allclose(silu_mul_(gate.clone(), up).to(at::kDouble), exact, 1e-6, 1e-7)) << n;
    const at::Tensor gb = gate.to(at::kBFloat16), ub = up.to(at::kBFloat16);
    const at::Tensor yb = silu_mul_(gb.clone(), ub);
    EXPECT_TRUE(
        at::allclose(yb.to(at::kFloat), silu_mul_reference(gb, ub).to(at::kFloat), 1.0 / 128, 1e-6))
        << n;
  }
}

TEST(SwigluTest, ExtremesAreFiniteAndNanStays) {
  const float inf = std::numeric_limits<float>::infinity();
  const at::Tensor y = silu_mul_(
      at::tensor({-200.0f, -88.0f, 200.0f, 3e38f, -inf, inf, std::nanf("")}), at::ones({7}));
  EXPECT_EQ(y[0].item<float>(), 0.0f);
  EXPECT_NEAR(y[1].item<float>(), 0.0f, 1e-30);
  EXPECT_EQ(y[2].item<float>(), 200.0f);
  EXPECT_EQ(y[3].item<float>(), 3e38f);
  EXPECT_EQ(y[5].item<float>(), inf);
  EXPECT_TRUE(std::isnan(y[6].item<float>()));
}

TEST(SwigluTest, LeavesArgumentsAloneUnderGradient) {
  const at::Tensor gate = at::randn({20}).requires_grad_(), up = at::randn({20});
  const at::Tensor before = gate.detach().clone();
  const at::Tensor y = silu_mul_(gate, up);
  EXPECT_TRUE(gate.equal(before));
  const at::Tensor grad = torch::autograd::grad({y.sum()}, {gate})[0];
  const at::Tensor s = at::sigmoid(before);
  EXPECT_TRUE(at::allclose(grad, up * s * (1 + before * (1 - s)), 1e-5, 1e-6));
}

TEST(SwigluTest, GradientsForOddSizesAndBothTypes) {
  at::manual_seed(6);
  for (const std::int64_t n : {1, 15, 33, 70001}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor gate = (at::randn({n}) * 5).to(type), up = at::randn({n}).to(type),
                       g = at::randn({n}).to(type);
      const at::Tensor gd = gate.to(at::kDouble).requires_grad_(),
                       ud = up.to(at::kDouble).requires_grad_();
      const auto exact = torch::autograd::grad({at::silu(gd) * ud}, {gd, ud}, {g.to(at::kDouble)});
      const at::Tensor a = gate.clone().requires_grad_(), b = up.clone().requires_grad_();
      const auto ours = torch::autograd::grad({silu_mul_(a, b)}, {a, b}, {g});
      const double tolerance = type == at::kFloat ? 1e-5 : 1.0 / 64;
      for (std::size_t i = 0; i < 2; ++i) {
        EXPECT_TRUE(at::allclose(ours[i].to(at::kDouble), exact[i], tolerance, tolerance)) << n;
      }
    }
  }
}

TEST(GeluMulTest, EqualsAtenAndKeepsBitsAnywhere) {
  const at::Tensor gate = at::randn({997}) * 4, up = at::randn({997});
  gate[3] = -200.0;
  gate[4] = 200.0;
  const at::Tensor y = gelu_mul(gate, up);
  EXPECT_TRUE(at::allclose(y, at::gelu(gate, "tanh") * up, 1e-5, 1e-6));
  for (const std::int64_t first : {1, 500, 990})
    EXPECT_TRUE(
        gelu_mul(gate.narrow(0, first, 7), up.narrow(0, first, 7)).equal(y.narrow(0, first, 7)));
}

}  // namespace
}  // namespace espalier
