// Augmentation against loops over pixels; the same image in any batch.
#include "espalier/data/augment.h"

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
  const at::Tensor draws = at::tensor({0, 0, 0, 0,  // top left corner
                                       2, 2, 0, 0,  // as it is
                                       2, 2, 1, 0,  // mirrored
                                       4, 4, 1, 0,  // bottom right, mirrored
                                       1, 3, 0, 0, 3, 1, 1, 0},
                                      at::kLong)
                               .view({6, 4});
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

TEST(Augment, RotatesByWholeQuartersExactly) {
  const AugmentOptions options{0, false, 90};
  const at::Tensor batch = some_images(3, 2, 6, 6);
  const at::Tensor draws =
      at::tensor({0, 0, 0, 1000000, 0, 0, 0, -1000000, 0, 0, 0, 0}, at::kLong).view({3, 4});
  const at::Tensor out = apply_augment(batch, draws, options);
  EXPECT_TRUE(at::equal(out[0], batch[0].rot90(1, {1, 2})));
  EXPECT_TRUE(at::equal(out[1], batch[1].rot90(-1, {1, 2})));
  EXPECT_TRUE(at::equal(out[2], batch[2]));
  // At 45 degrees the corners come from outside.
  const at::Tensor half = at::tensor({0, 0, 0, 500000}, at::kLong).view({1, 4});
  const at::Tensor tilted = apply_augment(batch.narrow(0, 0, 1), half, options);
  EXPECT_EQ(tilted[0][0][0][0].item<int>(), 0);
  EXPECT_GT(tilted[0][0][3][3].item<int>(), 0);
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
  EXPECT_LE(many.select(1, 3).abs().max().item<int>(), 1000000);
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
