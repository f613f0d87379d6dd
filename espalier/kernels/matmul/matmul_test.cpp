// Products of both back ends against float64, equal bits whatever the number of rows, and
// gradients.
#include "espalier/kernels/matmul/matmul.h"

#include <bit>
#include <cmath>
#include <optional>

#include <gtest/gtest.h>

#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/kernels/matmul/onednn_internal.h"
#include "espalier/kernels/matmul/split_internal.h"

namespace espalier {
namespace {

class MatmulTest : public testing::TestWithParam<MatmulBackend> {
 protected:
  void SetUp() override {
    before_ = matmul_backend();
    if (GetParam() == MatmulBackend::kOnednn && !has_onednn_linear())
      GTEST_SKIP() << "no oneDNN that keeps a row's bits on this machine";
    set_matmul_backend(GetParam());
    at::manual_seed(7);
  }
  void TearDown() override { set_matmul_backend(before_); }

  MatmulBackend before_ = MatmulBackend::kAten;
};

/// A dot product of n float32 terms of size s errs by about sqrt(n) * eps * s * sqrt(n); 4x margin.
double tolerance(std::int64_t terms) { return 4 * static_cast<double>(terms) * 6e-8; }

double max_error(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0) return 0;
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

TEST_P(MatmulTest, EqualsFloat64) {
  for (const auto& [rows, in, out] : {std::tuple{0, 64, 64},
                                      {1, 64, 96},
                                      {7, 100, 77},
                                      {8, 100, 77},
                                      {130, 257, 129},
                                      {300, 64, 512}}) {
    const at::Tensor x = at::randn({rows, in}), w = at::randn({out, in}), b = at::randn({out});
    const at::Tensor expected = at::matmul(x.to(at::kDouble), w.to(at::kDouble).t()) + b;
    EXPECT_LT(max_error(matmul_nt(x, w, b), expected), tolerance(in))
        << rows << "x" << in << "x" << out;
    EXPECT_LT(max_error(matmul_nt(x, w), expected - b), tolerance(in))
        << rows << "x" << in << "x" << out;
  }
}

TEST_P(MatmulTest, KeepsLeadingDimensionsAndTakesStridedInput) {
  const at::Tensor x = at::randn({64, 5, 4}).transpose(0, 2),
                   w = at::randn({96, 64});  // [4, 5, 64]
  const at::Tensor y = matmul_nt(x, w);
  EXPECT_EQ(y.sizes(), (std::vector<std::int64_t>{4, 5, 96}));
  EXPECT_LT(max_error(y, at::matmul(x.to(at::kDouble), w.to(at::kDouble).t())), tolerance(64));
}

TEST_P(MatmulTest, RowsKeepTheirBitsWhateverTheirNumber) {
  // The promise is about what the machine takes by itself.
  if (GetParam() == MatmulBackend::kAten && before_ == MatmulBackend::kOnednn)
    GTEST_SKIP() << "MKL is not this machine's choice, because of this test";
  for (const auto& [in, out] :
       {std::pair{64, 64}, {576, 192}, {576, 1536}, {1536, 576}, {100, 77}, {2048, 512}}) {
    const at::Tensor x = at::randn({600, in}), w = at::randn({out, in});
    const at::Tensor all = matmul_nt(x, w);
    for (const std::int64_t rows : {8, 9, 31, 64, 100, 127, 128, 129, 255, 256, 511}) {
      const at::Tensor some = matmul_nt(x.narrow(0, 0, rows), w);
      EXPECT_TRUE(some.equal(all.narrow(0, 0, rows))) << rows << " rows of " << in << " to " << out;
      // The position of a row within the batch must not matter either.
      const at::Tensor tail = matmul_nt(x.narrow(0, 600 - rows, rows), w);
      EXPECT_TRUE(tail.equal(all.narrow(0, 600 - rows, rows)))
          << "last " << rows << " rows of " << in << " to " << out;
    }
  }
}

TEST_P(MatmulTest, GradientsEqualThoseOfLinear) {
  const at::Tensor x = at::randn({3, 50, 96}).requires_grad_(),
                   w = at::randn({130, 96}).requires_grad_(), b = at::randn({130}).requires_grad_();
  const at::Tensor g = at::randn({3, 50, 130});
  const auto ours = torch::autograd::grad({matmul_nt(x, w, b)}, {x, w, b}, {g});
  const auto theirs = torch::autograd::grad({at::linear(x, w, b)}, {x, w, b}, {g});
  EXPECT_LT(max_error(ours[0], theirs[0]), tolerance(130));
  EXPECT_LT(max_error(ours[1], theirs[1]), tolerance(150));
  EXPECT_LT(max_error(ours[2], theirs[2]), tolerance(150));
}

TEST_P(MatmulTest, GradientOfOneArgumentAlone) {
  const at::Tensor x = at::randn({20, 96}), frozen = at::randn({130, 96}),
                   w = at::randn({130, 96}).requires_grad_();
  const at::Tensor xg = x.clone().requires_grad_();
  EXPECT_LT(max_error(torch::autograd::grad({matmul_nt(xg, frozen).sum()}, {xg})[0],
                      frozen.sum(0).expand({20, 96})),
            tolerance(130));
  EXPECT_LT(
      max_error(torch::autograd::grad({matmul_nt(x, w).sum()}, {w})[0], x.sum(0).expand({130, 96})),
      tolerance(20));
}

TEST_P(MatmulTest, Bfloat16RowsKeepTheirBitsToo) {
  const at::Tensor x = at::randn({300, 576}).to(at::kBFloat16),
                   w = at::randn({192, 576}).to(at::kBFloat16);
  const at::Tensor all = matmul_nt(x, w);
  EXPECT_EQ(all.scalar_type(), at::kBFloat16);
  for (const std::int64_t rows : {8, 33, 128, 200})
    EXPECT_TRUE(matmul_nt(x.narrow(0, 0, rows), w).equal(all.narrow(0, 0, rows))) << rows;
}

/// Products in three bfloat16 parts, against float64.
class SplitProducts : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_bf16x3_products()) GTEST_SKIP() << "this processor has no AMX";
    before_ = matmul_backend();
    set_matmul_backend(MatmulBackend::kBf16x3);
    at::manual_seed(9);
  }
  void TearDown() override {
    if (before_) set_matmul_backend(*before_);
  }

 private:
  std::optional<MatmulBackend> before_;
};

/// Largest error relative to the sum of |terms|, which is what a dot product's rounding scales
/// with.
double relative_error(const at::Tensor& y, const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor exact = at::matmul(a.to(at::kDouble), b.to(at::kDouble)),
                   sizes = at::matmul(a.abs().to(at::kDouble), b.abs().to(at::kDouble));
  return ((y.to(at::kDouble) - exact).abs() / sizes).max().item<double>();
}

TEST_F(SplitProducts, ErrByLessThanTwoToTheMinus16OfEachTerm) {
  for (const auto& [rows, in, out] :
       {std::tuple{64, 64, 64}, {100, 77, 131}, {257, 576, 192}, {1024, 1536, 576}}) {
    const at::Tensor x = at::randn({rows, in}) * 100, w = at::randn({out, in}) / 7,
                     g = at::randn({rows, out});
    EXPECT_LT(relative_error(matmul_nt(x, w), x, w.t()), 0x1p-16)
        << rows << " " << in << " " << out;
    EXPECT_LT(relative_error(matmul_nn(g, w), g, w), 0x1p-16) << rows << " " << in << " " << out;
    EXPECT_LT(relative_error(matmul_tn(g, x), g.t(), x), 0x1p-16)
        << rows << " " << in << " " << out;
    // One bfloat16 product errs by some 2^-9 of each term: the low parts must be at work.
    EXPECT_GT(relative_error(matmul_nt(x.to(at::kBFloat16), w.to(at::kBFloat16)), x, w.t()),
              0x1p-15);
  }
}

TEST_F(SplitProducts, TakeStridedInputBiasAndGradients) {
  const at::Tensor x = at::randn({96, 70}).t().detach().requires_grad_(),
                   w = at::randn({200, 192}).narrow(1, 64, 96).detach().requires_grad_(),
                   b = at::randn({200}).requires_grad_(), g = at::randn({70, 200});
  const at::Tensor y = matmul_nt(x, w, b);
  EXPECT_LT(max_error(y, at::linear(x, w, b)), 2e-3);
  const auto ours = torch::autograd::grad({y}, {x, w, b}, {g});
  const auto theirs = torch::autograd::grad({at::linear(x, w, b)}, {x, w, b}, {g});
  for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(max_error(ours[i], theirs[i]), 3e-3) << i;
}

TEST_F(SplitProducts, LeaveNarrowProductsExact) {
  const at::Tensor x = at::randn({512, 576}), a = at::randn({8, 576});
  const at::Tensor narrow = matmul_nt(x, a);
  set_matmul_backend(MatmulBackend::kAten);
  EXPECT_TRUE(narrow.equal(matmul_nt(x, a)));
}

TEST(SplitBf16, PartsAddUpToSixteenBits) {
  const float values[] = {1.0f, -3.14159265f, 1e-20f, 65504.5f, 0.0f, -1e30f};
  std::uint16_t high[6], low[6];
  split_bf16(values, 6, high, low);
  for (int i = 0; i < 6; ++i) {
    const auto part = [](std::uint16_t bits) {
      return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
    };
    EXPECT_NEAR(part(high[i]) + part(low[i]), values[i], std::abs(values[i]) * 0x1p-16) << i;
  }
}

TEST(MatmulBackends, Bf16x3IsRefusedWhereTheProcessorHasNone) {
  if (has_bf16x3_products()) GTEST_SKIP() << "this processor has AMX";
  EXPECT_THROW(set_matmul_backend(MatmulBackend::kBf16x3), Error);
}

INSTANTIATE_TEST_SUITE_P(Backends, MatmulTest,
                         testing::Values(MatmulBackend::kAten, MatmulBackend::kOnednn),
                         [](const auto& param) {
                           return param.param == MatmulBackend::kAten ? "Aten" : "Onednn";
                         });

}  // namespace
}  // namespace espalier
