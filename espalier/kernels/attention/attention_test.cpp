// causal_attention against its definition: groups, windows, caches, strides.
#include "espalier/kernels/attention/attention.h"

#include <cmath>

#include <gtest/gtest.h>

#include <torch/csrc/autograd/autograd.h>

#include "espalier/kernels/attention/kernels_internal.h"

namespace espalier {
namespace {

constexpr double kTolerance = 2e-6;  // float32 sums of at most 300 weighted values of size 1

void expect_close(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  EXPECT_TRUE(at::allclose(a, b, 1e-5, kTolerance)) << (a - b).abs().max().item<float>();
}

TEST(AttentionTest, EqualsDefinition) {
  at::manual_seed(4);
  for (const auto& [batch, tokens, positions, heads, kv_heads] : {std::tuple{1, 1, 1, 1, 1},
                                                                  {2, 9, 9, 4, 4},
                                                                  {2, 40, 40, 9, 3},
                                                                  {1, 5, 20, 6, 2},
                                                                  {3, 1, 33, 8, 2},
                                                                  {1, 130, 300, 2, 1}}) {
    for (const std::int64_t window : {0, 1, 4, 32, 1000}) {
      const at::Tensor q = at::randn({batch, tokens, heads, 16});
      const at::Tensor k = at::randn({batch, kv_heads, positions, 16}),
                       v = at::randn({batch, kv_heads, positions, 16});
      expect_close(causal_attention(q, k, v, window), causal_attention_reference(q, k, v, window));
    }
  }
}

TEST(AttentionTest, FirstTokenSeesItselfOnlyAndWindowOneIsIdentity) {
  const at::Tensor q = at::randn({1, 6, 2, 8}), k = at::randn({1, 2, 6, 8}),
                   v = at::randn({1, 2, 6, 8});
  EXPECT_TRUE(at::allclose(causal_attention(q, k, v)[0][0], v.transpose(1, 2)[0][0]));
  EXPECT_TRUE(at::allclose(causal_attention(q, k, v, 1), v.transpose(1, 2)));
}

TEST(AttentionTest, StridedKeysOfACacheAndOfAProjection) {
  const at::Tensor q = at::randn({2, 7, 4, 8}), cache = at::randn({2, 2, 50, 8}),
                   projected = at::randn({2, 7, 2, 8});
  const at::Tensor part = cache.narrow(2, 0, 12);
  EXPECT_TRUE(causal_attention(q, part, part)
                  .equal(causal_attention(q, part.contiguous(), part.contiguous())));
  const at::Tensor turned = projected.transpose(1, 2);
  EXPECT_TRUE(causal_attention(q, turned, turned)
                  .equal(causal_attention(q, turned.contiguous(), turned.contiguous())));
}

TEST(AttentionTest, BatchRowsKeepTheirBits) {
  const at::Tensor q = at::randn({5, 33, 6, 16}), k = at::randn({5, 2, 33, 16}),
                   v = at::randn({5, 2, 33, 16});
  for (const std::int64_t window : {0, 8}) {
    const at::Tensor all = causal_attention(q, k, v, window);
    for (std::int64_t row = 0; row < 5; ++row) {
      const auto one = [&](const at::Tensor& x) { return x.narrow(0, row, 1); };
      EXPECT_TRUE(causal_attention(one(q), one(k), one(v), window).equal(one(all))) << row;
    }
  }
}

TEST(AttentionTest, ChunksOfQueriesHaveTheBitsOfTheWhole) {
  if (!has_attention_cpu(16))
    GTEST_SKIP() << "this processor has no AVX-512, libtorch's kernel promises nothing here";
  const at::Tensor q = at::randn({1, 300, 6, 16}), k = at::randn({1, 2, 300, 16}),
                   v = at::randn({1, 2, 300, 16});
  for (const std::int64_t window : {0, 50, 129}) {
    const at::Tensor whole = causal_attention(q, k, v, window);
    for (const auto& [first, count] : {std::pair{0, 100}, {100, 77}, {177, 123}}) {
      const at::Tensor part =
          causal_attention(q.narrow(1, first, count), k.narrow(2, 0, first + count),
                           v.narrow(2, 0, first + count), window);
      EXPECT_TRUE(part.equal(whole.narrow(1, first, count))) << first << " window " << window;
    }
  }
}

TEST(AttentionTest, OddHeadSizesAndBfloat16) {
  for (const std::int64_t head_dim : {2, 12, 64, 80, 100, 256, 600}) {
    const at::Tensor q = at::randn({2, 70, 4, head_dim}), k = at::randn({2, 2, 150, head_dim}),
                     v = at::randn({2, 2, 150, head_dim});
    expect_close(causal_attention(q, k, v), causal_attention_reference(q, k, v));
    const auto half = [](const at::Tensor& x) { return x.to(at::kBFloat16); };
    const at::Tensor y = causal_attention(half(q), half(k), half(v)),
                     exact = causal_attention_reference(half(q), half(k), half(v));
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(at::allclose(y.to(at::kFloat), exact.to(at::kFloat), 1.0 / 64, 1.0 / 128))
        << head_dim;
  }
}

TEST(AttentionTest, HugeScoresAndNanStayInTheirRow) {
  at::Tensor q = at::randn({1, 20, 1, 16}) * 1e4, k = at::randn({1, 1, 20, 16}) * 1e4;
  const at::Tensor v = at::randn({1, 1, 20, 16});
  EXPECT_TRUE(causal_attention(q, k, v).isfinite().all().item<bool>());
  q[0][7][0][3] = std::nan("");
  const at::Tensor y = causal_attention(q, k, v);
  EXPECT_TRUE(y[0][7].isnan().all().item<bool>());
  EXPECT_EQ(y.isnan().sum().item<std::int64_t>(), 16);
}

TEST(AttentionTest, GradientOfTheDefinition) {
  const at::Tensor q = at::randn({1, 9, 4, 8}), k = at::randn({1, 2, 9, 8}),
                   v = at::randn({1, 2, 9, 8}), g = at::randn({1, 9, 4, 8});
  for (const std::int64_t window : {0, 3}) {
    const auto run = [&](auto&& fn, at::ScalarType type) {
      const std::vector<at::Tensor> in{q.to(type).clone().requires_grad_(),
                                       k.to(type).clone().requires_grad_(),
                                       v.to(type).clone().requires_grad_()};
      return torch::autograd::grad({fn(in[0], in[1], in[2], window)}, in, {g.to(type)});
    };
    const auto ours = run(causal_attention, at::kFloat),
               exact = run(causal_attention_reference, at::kDouble);
    for (int i = 0; i < 3; ++i)
      EXPECT_TRUE(at::allclose(ours[i].to(at::kDouble), exact[i], 1e-4, 1e-5))
          << i << " window " << window;
  }
}

TEST(AttentionTest, ScaleAndSoftcap) {
  const at::Tensor q = at::randn({2, 9, 4, 8}) * 3, k = at::randn({2, 2, 11, 8}),
                   v = at::randn({2, 2, 11, 8});
  for (const double softcap : {0.0, 2.5}) {
    AttentionOptions options(4);
    options.scale = 0.7;
    options.softcap = softcap;
    const at::Tensor y = causal_attention(q, k, v, options);
    expect_close(y, causal_attention_reference(q, k, v, options));
    // One token at a time goes another way.
    expect_close(causal_attention(q.narrow(1, 8, 1), k, v, options), y.narrow(1, 8, 1));
    EXPECT_FALSE(at::allclose(y, causal_attention(q, k, v, 4), 1e-3, 1e-3));
  }
  // By hand: one query of two keys with scores 3 and 0, capped at 2: 2 tanh(1.5) = 1.8102966.
  AttentionOptions options;
  options.scale = 1;
  options.softcap = 2;
  const at::Tensor one = at::tensor({0.0f, 3.0f}).reshape({1, 2, 1, 1}),
                   keys = at::tensor({0.0f, 1.0f}).reshape({1, 1, 2, 1});
  const float weight = causal_attention(one, keys, keys, options)[0][1][0][0].item<float>();
  EXPECT_NEAR(weight, 1 / (1 + std::exp(-1.8102966)), 1e-6);
}

TEST(AttentionTest, SoftcapGradientOfTheDefinition) {
  const at::Tensor q = at::randn({1, 7, 2, 8}), k = at::randn({1, 1, 7, 8}),
                   v = at::randn({1, 1, 7, 8}), g = at::randn({1, 7, 2, 8});
  AttentionOptions options(3);
  options.scale = 1.5;
  options.softcap = 1.2;
  const auto run = [&](auto&& fn, at::ScalarType type) {
    const std::vector<at::Tensor> in{q.to(type).clone().requires_grad_(),
                                     k.to(type).clone().requires_grad_(),
                                     v.to(type).clone().requires_grad_()};
    return torch::autograd::grad({fn(in[0], in[1], in[2], options)}, in, {g.to(type)});
  };
  const auto ours = run(causal_attention, at::kFloat),
             exact = run(causal_attention_reference, at::kDouble);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_TRUE(at::allclose(ours[i].to(at::kDouble), exact[i], 1e-4, 1e-5)) << i;
}

}  // namespace
}  // namespace espalier
