// Augmentation against loops over pixels; the same image in any batch.
#include "espalier/data/augment.h"

#include <cmath>
#include <numbers>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

namespace espalier {
namespace {

at::Tensor some_images(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return at::arange(n * c * h * w, at::kLong)
      .mul(37)
      .remainder(251)
      .add(1)
      .to(at::kByte)
      .view({n, c, h, w});
}

TEST(Augment, CropsAndMirrorsLikeALoop) {
  const AugmentOptions options{2, true, 0};
  const at::Tensor batch = some_images(6, 3, 5, 7);
  const at::Tensor draws = at::tensor({0, 0, 0, 0, 0,  // top left corner
                                       2, 2, 0, 0, 0,  // as it is
                                       2, 2, 1, 0, 0,  // mirrored
                                       4, 4, 1, 0, 0,  // bottom right, mirrored
                                       1, 3, 0, 0, 0, 3, 1, 1, 0, 0},
                                      at::kLong)
                               .view({6, 5});
  const at::Tensor out = apply_augment(batch, draws, options);
  ASSERT_EQ(out.sizes(), batch.sizes());
  EXPECT_EQ(out.scalar_type(), at::kByte);
  EXPECT_TRUE(at::equal(out[1], batch[1]));
  EXPECT_TRUE(at::equal(out[2], batch[2].flip({2})));
  const auto in = batch.accessor<std::uint8_t, 4>();
  const auto got = out.accessor<std::uint8_t, 4>();
  const auto d = draws.accessor<std::int64_t, 2>();
  for (std::int64_t n = 0; n < 6; ++n)
    for (std::int64_t c = 0; c < 3; ++c)
      for (std::int64_t y = 0; y < 5; ++y)
        for (std::int64_t x = 0; x < 7; ++x) {
          const std::int64_t sy = y + d[n][0] - 2, sx = (d[n][2] != 0 ? 6 - x : x) + d[n][1] - 2;
          const bool inside = sy >= 0 && sy < 5 && sx >= 0 && sx < 7;
          ASSERT_EQ(got[n][c][y][x], inside ? in[n][c][sy][sx] : 0) << n << c << y << x;
        }
}

/// Draws that rotate alone.
at::Tensor turns(const std::vector<double>& degrees) {
  at::Tensor draws = at::zeros({static_cast<std::int64_t>(degrees.size()), 5}, at::kLong);
  for (std::size_t i = 0; i < degrees.size(); ++i) {
    const double angle = degrees[i] * std::numbers::pi / 180;
    draws[static_cast<std::int64_t>(i)][3] = std::llround(std::ldexp(std::cos(angle), 46));
    draws[static_cast<std::int64_t>(i)][4] = std::llround(std::ldexp(std::sin(angle), 46));
  }
  return draws;
}

TEST(Augment, RotatesByWholeQuartersExactly) {
  const AugmentOptions options{0, false, 90};
  const at::Tensor batch = some_images(3, 2, 6, 6);
  const at::Tensor out = apply_augment(batch, turns({90, -90, 0}), options);
  EXPECT_TRUE(at::equal(out[0], batch[0].rot90(1, {1, 2})));
  EXPECT_TRUE(at::equal(out[1], batch[1].rot90(-1, {1, 2})));
  EXPECT_TRUE(at::equal(out[2], batch[2]));
}

TEST(Augment, RotatesAsPillow) {
  // Image.fromarray(a).rotate(d) of Pillow 13.0.0, for a = (arange(20) * 37 % 251 + 1).reshape(4,
  // 5). 6000 random angles on three sizes agreed in every pixel as well.
  const at::Tensor image = some_images(1, 1, 4, 5);
  const at::Tensor out =
      apply_augment(image.expand({3, 1, 4, 5}), turns({15, -7.5, 33}), {0, false, 45});
  const at::Tensor pillow =
      at::tensor({1,   38,  75,  112, 83,  1,   223, 9,   46,  17,  186, 157, 194, 231, 202,
                  120, 91,  128, 165, 202, 1,   38,  75,  112, 149, 186, 223, 9,   46,  83,
                  120, 157, 194, 231, 17,  54,  91,  128, 165, 202, 0,   75,  112, 83,  83,
                  38,  223, 9,   231, 17,  186, 223, 194, 231, 165, 120, 120, 91,  128, 0},
                 at::kByte)
          .view({3, 1, 4, 5});
  EXPECT_TRUE(at::equal(out, pillow)) << out.view({3, 20});
}

TEST(Augment, TheRotationIsOfTheCroppedAndMirroredImage) {
  const at::Tensor batch = some_images(1, 3, 6, 6);
  at::Tensor both = turns({20});
  both.narrow(1, 0, 3).copy_(at::tensor({0, 3, 1}, at::kLong).view({1, 3}));
  const at::Tensor cropped = apply_augment(batch, both, {2, true, 0});
  EXPECT_TRUE(at::equal(apply_augment(batch, both, {2, true, 30}),
                        apply_augment(cropped, turns({20}), {0, false, 30})));
}

TEST(Augment, DrawsDependOnSeedEpochAndImageAlone) {
  const AugmentOptions options{4, true, 15};
  const at::Tensor all = augment_draws(options, 7, 3, {5, 6, 7, 8});
  EXPECT_TRUE(at::equal(augment_draws(options, 7, 3, {8, 6}), at::stack({all[3], all[1]})));
  EXPECT_FALSE(at::equal(augment_draws(options, 7, 4, {5, 6, 7, 8}), all));
  EXPECT_FALSE(at::equal(augment_draws(options, 8, 3, {5, 6, 7, 8}), all));
  std::vector<std::int64_t> rows(4000);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
  const at::Tensor many = augment_draws(options, 1, 0, rows);
  EXPECT_EQ(many.select(1, 0).min().item<int>(), 0);
  EXPECT_EQ(many.select(1, 0).max().item<int>(), 8);
  EXPECT_NEAR(many.select(1, 1).to(at::kDouble).mean().item<double>(), 4, 0.15);
  EXPECT_NEAR(many.select(1, 2).to(at::kDouble).mean().item<double>(), 0.5, 0.03);
  // Angles are even within 15 degrees: the sine's mean square is (1 - sin(2a) / 2a) / 2.
  const at::Tensor sine = many.select(1, 4).to(at::kDouble).mul(std::ldexp(1.0, -46));
  EXPECT_LE(sine.abs().max().item<double>(), std::sin(std::numbers::pi / 12));
  EXPECT_NEAR(sine.mean().item<double>(), 0, 0.01);
  EXPECT_NEAR(sine.square().mean().item<double>(), 0.02254, 0.001);
  // Without mirror images the other draws stay.
  const at::Tensor plain = augment_draws({4, false, 15}, 1, 0, rows);
  EXPECT_TRUE(at::equal(plain.narrow(1, 3, 2), many.narrow(1, 3, 2)));
  EXPECT_EQ(plain.select(1, 2).max().item<int>(), 0);
  EXPECT_TRUE(at::equal(apply_augment(some_images(2, 1, 3, 3), augment_draws({}, 1, 0, {0, 1}), {}),
                        some_images(2, 1, 3, 3)));
}

TEST(Augment, NormalisesPerChannel) {
  const at::Tensor batch = some_images(2, 3, 4, 4);
  const at::Tensor out = normalise(batch, {0.5, 0.4, 0.3}, {0.2, 0.25, 0.5}, at::kFloat);
  const at::Tensor mean = at::tensor({0.5, 0.4, 0.3}, at::kDouble).view({1, 3, 1, 1}),
                   std = at::tensor({0.2, 0.25, 0.5}, at::kDouble).view({1, 3, 1, 1});
  EXPECT_LT((out - (batch.to(at::kDouble) / 255 - mean) / std).abs().max().item<double>(), 1e-6);
  EXPECT_EQ(normalise(batch, {}, {}, at::kBFloat16).scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace espalier
