// Products of both back ends against float64, equal bits whatever the number of rows, and
// gradients.
#include "espalier/kernels/matmul/matmul.h"

#include <gtest/gtest.h>

#include <torch/csrc/autograd/autograd.h>

#include "espalier/kernels/matmul/onednn_internal.h"

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

TEST_P(MatmulTest, TakesColumnsCutOutOfAWiderMatrix) {
  const at::Tensor g = at::randn({256, 576}), wide = at::randn({256, 24});
  const at::Tensor columns = wide.narrow(1, 8, 8);
  const at::Tensor product = matmul_tn(g, columns);
  const at::Tensor expected = at::matmul(g.to(at::kDouble).t(), columns.to(at::kDouble));
  EXPECT_LT((product - expected).abs().max().item<double>(), 1e-3);
  const at::Tensor weight = at::randn({576, 96}).narrow(1, 16, 64);
  EXPECT_LT((matmul_nn(g, weight) - at::matmul(g.to(at::kDouble), weight.to(at::kDouble)))
                .abs()
                .max()
                .item<double>(),
            1e-3);
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

INSTANTIATE_TEST_SUITE_P(Backends, MatmulTest,
                         testing::Values(MatmulBackend::kAten, MatmulBackend::kOnednn),
                         [](const auto& param) {
                           return param.param == MatmulBackend::kAten ? "Aten" : "Onednn";
                         });

}  // namespace
}  // namespace espalier
