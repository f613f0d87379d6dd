// rope against its definition and hand-computed turns.
#include "espalier/kernels/rope/rope.h"

#include <cmath>

#include <gtest/gtest.h>

#include <torch/csrc/autograd/autograd.h>

namespace espalier {
namespace {

std::pair<at::Tensor, at::Tensor> tables(std::int64_t tokens, std::int64_t head_dim) {
  const at::Tensor inv =
      at::pow(10000.0, at::arange(0, head_dim, 2, at::kFloat) / static_cast<double>(head_dim))
          .reciprocal();
  const at::Tensor angles = at::arange(tokens, at::kFloat).unsqueeze(1) * inv;
  const at::Tensor twice = at::cat({angles, angles}, 1);
  return {at::cos(twice), at::sin(twice)};
}

TEST(RopeTest, QuarterTurn) {
  // A quarter turn sends (a, b) to (-b, a), pair by pair over the halves.
  const at::Tensor x = at::tensor({1.0f, 2.0f, 3.0f, 4.0f}).reshape({1, 1, 1, 4});
  const at::Tensor y = rope_(x.clone(), at::zeros({1, 4}), at::ones({1, 4}));
  EXPECT_TRUE(y.reshape({4}).equal(at::tensor({-3.0f, -4.0f, 1.0f, 2.0f})));
}

TEST(RopeTest, EqualsDefinition) {
  at::manual_seed(2);
  for (const std::int64_t head_dim : {2, 6, 64, 80}) {
    for (const auto& [batch, tokens, heads] :
         {std::tuple{1, 1, 1}, {2, 7, 3}, {3, 50, 9}, {0, 5, 2}}) {
      const at::Tensor x = at::randn({batch, tokens, heads, head_dim});
      const auto [cos, sin] = tables(tokens, head_dim);
      const at::Tensor expected = rope_reference(x, cos, sin);
      EXPECT_TRUE(at::allclose(rope_(x.clone(), cos, sin), expected, 1e-6, 1e-6));
      // bfloat16 rounds each product as the composition does, so nothing may differ.
      const at::Tensor xb = x.to(at::kBFloat16), cb = cos.to(at::kBFloat16),
                       sb = sin.to(at::kBFloat16);
      EXPECT_TRUE(rope_(xb.clone(), cb, sb).equal(rope_reference(xb, cb, sb)));
    }
  }
}

TEST(RopeTest, WorksInPlaceOnlyWithoutGradient) {
  const auto [cos, sin] = tables(4, 8);
  const at::Tensor x = at::randn({1, 4, 2, 8});
  const at::Tensor free = x.clone();
  EXPECT_EQ(rope_(free, cos, sin).data_ptr(), free.data_ptr());
  const at::Tensor tracked = x.clone().requires_grad_();
  const at::Tensor y = rope_(tracked, cos, sin);
  EXPECT_TRUE(tracked.equal(x));
  // A rotation keeps lengths, so the gradient of half the squared length is x itself.
  const at::Tensor grad = torch::autograd::grad({(y * y).sum() / 2}, {tracked})[0];
  EXPECT_TRUE(at::allclose(grad, x, 1e-5, 1e-5));
}

TEST(RopeTest, GradientIsThatOfTheDefinition) {
  at::manual_seed(5);
  // Tables whose halves differ: nothing may be assumed about them.
  const at::Tensor cos = at::randn({6, 10}), sin = at::randn({6, 10});
  const at::Tensor x = at::randn({2, 6, 3, 10}), g = at::randn({2, 6, 3, 10});
  const at::Tensor ours = x.clone().requires_grad_(), exact = x.clone().requires_grad_();
  const at::Tensor a = torch::autograd::grad({rope_(ours, cos, sin)}, {ours}, {g})[0];
  const at::Tensor b = torch::autograd::grad({rope_reference(exact, cos, sin)}, {exact}, {g})[0];
  EXPECT_TRUE(at::allclose(a, b, 1e-5, 1e-5));
  const at::Tensor half = x.to(at::kBFloat16).requires_grad_();
  const at::Tensor c =
      torch::autograd::grad({rope_(half, cos.to(at::kBFloat16), sin.to(at::kBFloat16))}, {half},
                            {g.to(at::kBFloat16)})[0];
  EXPECT_TRUE(at::allclose(c.to(at::kFloat), b, 2e-2, 5e-2));
}

}  // namespace
}  // namespace espalier
