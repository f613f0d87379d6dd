// rms_norm against its definition, its composition and hand-computed values.
#include "espalier/kernels/rms_norm/rms_norm.h"

#include <cmath>

#include <gtest/gtest.h>

#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

// float32: the sum of squares errs by a few units in the last place, then one division and two
// products.
constexpr double kFloatTolerance = 1e-6;
// bfloat16 keeps 8 bits: a value may round to the neighbour of the reference's, 2^-8 of its size.
constexpr double kBf16Tolerance = 1.0 / 256;

void expect_close(const at::Tensor& a, const at::Tensor& b, double relative) {
  const at::Tensor x = a.to(at::kCPU, at::kDouble), y = b.to(at::kCPU, at::kDouble);
  EXPECT_TRUE(at::allclose(x, y, relative, relative)) << (x - y).abs().max().item<double>();
}

std::vector<at::Device> devices() {
  std::vector<at::Device> all{at::kCPU};
  if (has_cuda()) all.emplace_back(at::kCUDA, 0);
  return all;
}

TEST(RmsNormTest, HandComputed) {
  // mean of squares (9 + 16) / 2 = 12.5; 3 / sqrt(12.5) = 0.848528, 4 / sqrt(12.5) = 1.131371.
  const at::Tensor y = rms_norm(at::tensor({3.0f, 4.0f}), at::tensor({1.0f, 2.0f}), 0.0);
  EXPECT_NEAR(y[0].item<float>(), 0.848528f, 1e-6);
  EXPECT_NEAR(y[1].item<float>(), 2.262742f, 1e-6);
}

TEST(RmsNormTest, EqualsDefinitionForOddSizesAndBothTypes) {
  at::manual_seed(1);
  for (const at::Device device : devices()) {
    for (const std::int64_t width : {1, 2, 15, 16, 17, 97, 576, 4096}) {
      for (const std::int64_t rows : {0, 1, 3, 130}) {
        const at::Tensor x = at::randn({rows, width}) * 3, w = at::randn({width});
        if (rows == 0) {
          EXPECT_EQ(rms_norm(x.to(device), w.to(device), 1e-5).numel(), 0);
          continue;
        }
        expect_close(rms_norm(x.to(device), w.to(device), 1e-5), rms_norm_reference(x, w, 1e-5),
                     kFloatTolerance);
        const at::Tensor xb = x.to(at::kBFloat16), wb = w.to(at::kBFloat16);
        const at::Tensor y = rms_norm(xb.to(device), wb.to(device), 1e-5);
        EXPECT_EQ(y.scalar_type(), at::kBFloat16);
        expect_close(y, rms_norm_reference(xb, wb, 1e-5), kBf16Tolerance);
      }
    }
  }
}

TEST(RmsNormTest, RowsAreIndependentAndStridesDoNotMatter) {
  const at::Tensor x = at::randn({64, 40}), w = at::randn({64});
  const at::Tensor strided = x.t();  // [40, 64], not contiguous
  const at::Tensor y = rms_norm(strided, w, 1e-6);
  EXPECT_TRUE(y.equal(rms_norm(strided.contiguous(), w, 1e-6)));
  EXPECT_TRUE(y[17].equal(rms_norm(strided[17], w, 1e-6)));
}

TEST(RmsNormTest, NanStaysInItsRow) {
  at::Tensor x = at::ones({3, 8});
  x[1][2] = std::nan("");
  const at::Tensor y = rms_norm(x, at::ones({8}), 1e-6);
  EXPECT_TRUE(y[1].isnan().all().item<bool>());
  EXPECT_FALSE(y[0].isnan().any().item<bool>());
  EXPECT_FALSE(y[2].isnan().any().item<bool>());
}

TEST(RmsNormTest, ForwardUnderGradAgreesAndGradientIsThatOfTheDefinition) {
  const at::Tensor x = at::randn({5, 33}), w = at::randn({33});
  const at::Tensor xg = x.clone().requires_grad_(), wg = w.clone().requires_grad_();
  const at::Tensor y = rms_norm(xg, wg, 1e-5);
  expect_close(y.detach(), rms_norm(x, w, 1e-5), kFloatTolerance);
  const at::Tensor g = at::randn({5, 33});
  const auto ours = torch::autograd::grad({y}, {xg, wg}, {g});
  const at::Tensor xd = x.to(at::kDouble).requires_grad_(), wd = w.to(at::kDouble).requires_grad_();
  const auto exact =
      torch::autograd::grad({rms_norm_reference(xd, wd, 1e-5)}, {xd, wd}, {g.to(at::kDouble)});
  expect_close(ours[0], exact[0], 1e-5);
  expect_close(ours[1], exact[1], 1e-5);
}

TEST(RmsNormTest, GradientsForOddSizesAndBothTypes) {
  at::manual_seed(4);
  for (const at::Device device : devices()) {
    for (const std::int64_t width : {1, 17, 576}) {
      // 64 rows make one partial sum of the weight's gradient: less, exactly, more than one.
      for (const std::int64_t rows : {3, 64, 130}) {
        for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
          const at::Tensor x = at::randn({rows, width}).to(type), w = at::randn({width}).to(type),
                           g = at::randn({rows, width}).to(type);
          const at::Tensor xd = x.to(at::kDouble).requires_grad_(),
                           wd = w.to(at::kDouble).requires_grad_();
          const auto exact = torch::autograd::grad({rms_norm_reference(xd, wd, 1e-5)}, {xd, wd},
                                                   {g.to(at::kDouble)});
          const at::Tensor xg = x.to(device).requires_grad_(), wg = w.to(device).requires_grad_();
          const auto ours =
              torch::autograd::grad({rms_norm(xg, wg, 1e-5)}, {xg, wg}, {g.to(device)});
          const double tolerance = type == at::kFloat ? 2e-5 : 2e-2;
          expect_close(ours[0], exact[0], tolerance);
          expect_close(ours[1], exact[1], tolerance * std::sqrt(static_cast<double>(rows)));
          EXPECT_EQ(ours[1].scalar_type(), type);
        }
      }
    }
  }
}

TEST(RmsNormTest, FrozenWeightGetsNoGradient) {
  const at::Tensor x = at::randn({4, 8}).requires_grad_(), w = at::randn({8});
  const auto grads = torch::autograd::grad({rms_norm(x, w, 1e-5).sum()}, {x});
  EXPECT_TRUE(grads[0].defined());
}

TEST(RmsNormTest, WidthsMustAgree) {
  EXPECT_THROW(rms_norm(at::ones({2, 3}), at::ones({4}), 1e-6), Error);
}

}  // namespace
}  // namespace espalier
