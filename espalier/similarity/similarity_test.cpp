// Hand-computed CKA and MSRS values, invariances, degenerate layers, bad input.
#include "espalier/similarity/similarity.h"

#include <cmath>
#include <numbers>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

#include "tests/support/thrown_by.h"

namespace espalier {
namespace {

using testing_support::thrown_by;

at::Tensor rows(std::vector<double> values, std::int64_t width) {
  return at::tensor(values, at::kDouble).view({-1, width});
}

const at::Tensor& oracle_x() {
  static const at::Tensor x = rows({1, 0, 0, 1, 1, 1, 0, 0, 2, 1}, 2);
  return x;
}
const at::Tensor& oracle_y() {
  static const at::Tensor y = rows({1, 0, 1, 0, 3}, 1);
  return y;
}

at::Tensor random(at::IntArrayRef shape, std::uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU).clone();
  generator.set_current_seed(seed);
  return at::randn(shape, generator, at::kDouble);
}

TEST(Cka, HandComputedValues) {
  EXPECT_DOUBLE_EQ(linear_cka(oracle_x(), oracle_y(), CkaEstimator::kBiased), 0.8959786703810406);
  EXPECT_NEAR(linear_cka(oracle_x(), oracle_y(), CkaEstimator::kUnbiased), 8.0 / 9.0, 1e-15);
  EXPECT_NEAR(
      linear_cka(oracle_x().narrow(0, 0, 4), oracle_y().narrow(0, 0, 4), CkaEstimator::kBiased),
      1 / std::numbers::sqrt2, 1e-15);
}

TEST(Cka, EqualsTheTraceFormulas) {
  const at::Tensor x = random({11, 5}, 1), y = random({11, 3}, 2);
  const std::int64_t m = 11;
  const at::Tensor h = at::eye(m, at::kDouble) - 1.0 / m;
  const auto hsic0 = [&](const at::Tensor& k, const at::Tensor& l) {
    return k.mm(h).mm(l).mm(h).trace().item<double>();
  };
  const at::Tensor k = x.mm(x.t()), l = y.mm(y.t());
  EXPECT_NEAR(linear_cka(x, y, CkaEstimator::kBiased),
              hsic0(k, l) / std::sqrt(hsic0(k, k) * hsic0(l, l)), 1e-13);
  const auto hollow = [](at::Tensor a) { return a.clone().fill_diagonal_(0); };
  const auto hsic1 = [&](const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor ab = a.mm(b);
    return ab.trace().item<double>() +
           a.sum().item<double>() * b.sum().item<double>() / ((m - 1.0) * (m - 2.0)) -
           2 * ab.sum().item<double>() / (m - 2.0);
  };
  const at::Tensor k0 = hollow(k), l0 = hollow(l);
  EXPECT_NEAR(linear_cka(x, y, CkaEstimator::kUnbiased),
              hsic1(k0, l0) / std::sqrt(hsic1(k0, k0) * hsic1(l0, l0)), 1e-12);
}

TEST(Cka, RotationScalingAndShiftChangeNothing) {
  const at::Tensor x = random({40, 7}, 3), y = random({40, 9}, 4);
  const at::Tensor rotation = std::get<0>(at::linalg_qr(random({7, 7}, 5)));
  for (const CkaEstimator estimator : {CkaEstimator::kBiased, CkaEstimator::kUnbiased}) {
    const double plain = linear_cka(x, y, estimator);
    EXPECT_NEAR(linear_cka(x.mm(rotation) * 123.0, y, estimator), plain, 1e-10);
    EXPECT_NEAR(linear_cka(x + 1000.0, y, estimator), plain, 1e-10);
    EXPECT_NEAR(linear_cka(x, x, estimator), 1.0, 1e-14);
  }
}

TEST(Cka, UnbiasedIsNearZeroForIndependentWideFeatures) {
  const at::Tensor x = random({64, 4096}, 6), y = random({64, 4096}, 7);
  EXPECT_GT(linear_cka(x, y, CkaEstimator::kBiased), 0.95);
  // A correlation of 64 * 63 / 2 independent pairs: standard deviation 1/sqrt(2016) = 0.0223; four
  // of them.
  EXPECT_LT(std::abs(linear_cka(x, y, CkaEstimator::kUnbiased)), 4 / std::sqrt(64 * 63 / 2.0));
}

TEST(Cka, ChunksOfWideFeaturesChangeNothing) {
  // 8 x 600,000 is wider than one chunk of columns.
  const at::Tensor x = random({8, 600'000}, 8).to(at::kFloat), y = random({8, 3}, 9);
  const at::Tensor xc = x.to(at::kDouble) - x.to(at::kDouble).mean(0, true),
                   yc = y - y.mean(0, true);
  const at::Tensor k = xc.mm(xc.t()), l = yc.mm(yc.t());
  const double expected =
      (k * l).sum().item<double>() / (k.norm().item<double>() * l.norm().item<double>());
  EXPECT_NEAR(linear_cka(x, y, CkaEstimator::kBiased), expected, 1e-12);
}

TEST(Cka, BadInputSaysFoundAndNeeded) {
  const at::Tensor x = rows({1, 2, 3}, 1);
  const Error few = thrown_by([&] { linear_cka(x, x, CkaEstimator::kUnbiased); });
  EXPECT_EQ(few.kind(), ErrorKind::kInput);
  EXPECT_NE(few.message().find("3 samples"), std::string::npos);
  EXPECT_NE(few.message().find("at least 4"), std::string::npos);
  EXPECT_FALSE(few.hint_text().empty());
  const Error unequal = thrown_by([&] { linear_cka(oracle_x(), x, CkaEstimator::kBiased); });
  EXPECT_NE(unequal.message().find("3 samples, but layer 0 has 5"), std::string::npos);
  const Error nan =
      thrown_by([&] { linear_cka(oracle_x() / 0.0, oracle_y(), CkaEstimator::kBiased); });
  EXPECT_EQ(nan.subject(), "features of layer 0");
  EXPECT_NE(nan.message().find("NaN"), std::string::npos);
}

TEST(HsicMatrix, AveragesHsicBeforeTheRatio) {
  // Second batch twice the scale: its HSIC weighs 16 times as much, while the mean of ratios weighs
  // both equally.
  HsicMatrix matrix(2, CkaEstimator::kBiased);
  matrix.add_batch({oracle_x(), oracle_y()});
  matrix.add_batch({2 * oracle_x().narrow(0, 0, 4), 2 * oracle_y().narrow(0, 0, 4)});
  const at::Tensor x4 = oracle_x().narrow(0, 0, 4), y4 = oracle_y().narrow(0, 0, 4);
  const auto hsic = [](const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor ac = a - a.mean(0, true), bc = b - b.mean(0, true);
    return ac.t().mm(bc).square().sum().item<double>() / ((a.size(0) - 1.0) * (a.size(0) - 1.0));
  };
  EXPECT_NEAR(hsic(oracle_x(), oracle_y()), 1.0625, 1e-14);
  EXPECT_NEAR(hsic(oracle_x(), oracle_x()), 0.625, 1e-14);
  EXPECT_NEAR(hsic(oracle_y(), oracle_y()), 2.25, 1e-14);
  const double xy = 1.0625 + 16 * hsic(x4, y4), xx = 0.625 + 16 * hsic(x4, x4),
               yy = 2.25 + 16 * hsic(y4, y4);
  EXPECT_NEAR(matrix.cka()[0][1].item<double>(), xy / std::sqrt(xx * yy), 1e-14);
  EXPECT_NEAR(matrix.cka_mean_of_ratios()[0][1].item<double>(),
              (0.8959786703810406 + 1 / std::numbers::sqrt2) / 2, 1e-14);
  EXPECT_EQ(matrix.batches(), 2);
}

TEST(HsicMatrix, SmallChunksAndTheLastBatch) {
  const at::Tensor x = random({6, 50}, 12), y = random({6, 7}, 13);
  HsicMatrix whole(2, CkaEstimator::kUnbiased), chunked(2, CkaEstimator::kUnbiased, 12);
  whole.add_batch({y, x});
  whole.add_batch({x, y});
  chunked.add_batch({x, y});
  EXPECT_NEAR(chunked.cka()[0][1].item<double>(), linear_cka(x, y, CkaEstimator::kUnbiased), 1e-12);
  EXPECT_NEAR(whole.last_batch_cka()[0][1].item<double>(), chunked.cka()[0][1].item<double>(),
              1e-12);
  EXPECT_EQ(whole.last_batch_cka().sizes(), (at::IntArrayRef{2, 2}));
}

TEST(HsicMatrix, DegenerateLayersAreNamedAndNeverCrash) {
  for (const CkaEstimator estimator : {CkaEstimator::kBiased, CkaEstimator::kUnbiased}) {
    HsicMatrix matrix(3, estimator);
    matrix.add_batch({random({6, 4}, 10), at::full({6, 5}, 0.1, at::kFloat), random({6, 2}, 11)});
    EXPECT_EQ(matrix.degenerate_layers(), (std::vector<std::int64_t>{1}));
    const at::Tensor cka = matrix.cka();
    EXPECT_TRUE(std::isnan(cka[0][1].item<double>()));
    EXPECT_TRUE(std::isnan(cka[1][1].item<double>()));
    EXPECT_NEAR(cka[0][0].item<double>(), 1.0, 1e-14);
    EXPECT_TRUE(std::isnan(matrix.cka_mean_of_ratios()[1][2].item<double>()));
    EXPECT_FALSE(std::isnan(matrix.cka_mean_of_ratios()[0][2].item<double>()));
    EXPECT_TRUE(std::isfinite(msrs(cka).value));
  }
  // One outlying row: the hollow Gram is additive, so the unbiased HSIC of the layer with itself is
  // exactly zero.
  HsicMatrix outlier(2, CkaEstimator::kUnbiased);
  outlier.add_batch({rows({5, 0, 0, 0, 0}, 1), oracle_y()});
  EXPECT_EQ(outlier.degenerate_layers(), (std::vector<std::int64_t>{0}));
}

TEST(Msrs, HandComputedValue) {
  const double nan = std::nan("");
  const at::Tensor s =
      rows({nan, .95, .80, .40, nan, nan, .81, .79, nan, nan, nan, -.20, nan, nan, nan, nan}, 4);
  const Msrs result = msrs(s, 100, 0.8);
  EXPECT_NEAR(result.value, 2.5, 1e-12);
  EXPECT_NEAR(result.normalised, 2.5 / 6, 1e-12);
  double shares = 0;
  for (const double share : result.share) shares += share;
  EXPECT_NEAR(shares, 2.5, 1e-12);
  EXPECT_NEAR(result.share[3], (0 + 1 / (1 + std::exp(2.0)) + 0) / 2, 1e-12);
}

TEST(Msrs, Extremes) {
  EXPECT_NEAR(msrs(at::eye(5, at::kDouble)).value, 0, 1e-60);
  EXPECT_NEAR(msrs(at::ones({5, 5}, at::kDouble)).value, 10, 1e-12);
  const Error one = thrown_by([] { msrs(at::ones({1, 1}, at::kDouble)); });
  EXPECT_NE(one.message().find("at least 2 layers, found 1"), std::string::npos);
  EXPECT_EQ(thrown_by([] { msrs(at::ones({2, 3}, at::kDouble)); }).kind(), ErrorKind::kInput);
}

TEST(Distance, HandComputedValues) {
  const at::Tensor a = rows({1, 0, 0, 2, 0, 0}, 2), b = rows({0, 3, 0, 5, 1, 1}, 2);
  EXPECT_NEAR(block_influence(a, b), 1 - (0 + 1 + 0) / 3.0, 1e-15);
  EXPECT_NEAR(angular_distance(a, b), (0.5 + 0 + 0.5) / 3.0, 1e-15);
  EXPECT_NEAR(angular_distance(rows({1, 0}, 2), rows({-2, 0}, 2)), 1.0, 1e-15);
  EXPECT_NEAR(block_influence(rows({1, 1}, 2), rows({1, 0}, 2)), 1 - 1 / std::numbers::sqrt2,
              1e-15);
  EXPECT_EQ(thrown_by([&] { block_influence(a, b.narrow(0, 0, 2)); }).kind(), ErrorKind::kInput);
}

TEST(Distance, MassiveActivationsDoNotHideTheOtherTokens) {
  // One token of size 1e6 that does not turn, nine that turn by 90 degrees: per-token BI sees 0.9.
  at::Tensor a = at::zeros({10, 2}, at::kFloat), b = at::zeros({10, 2}, at::kFloat);
  a.select(1, 0).fill_(1);
  b.select(1, 1).fill_(1);
  a[0][0] = 1e6;
  b[0][0] = 1e6;
  b[0][1] = 0;
  EXPECT_NEAR(block_influence(a.view({2, 5, 2}), b.view({2, 5, 2})), 0.9, 1e-12);
}

}  // namespace
}  // namespace espalier
