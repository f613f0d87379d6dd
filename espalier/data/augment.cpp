// See augment.h.
#include "espalier/data/augment.h"

#include <cmath>
#include <numbers>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/random.h"

namespace espalier {
namespace {

// Cosine and sine in the draws have this many binary places; times a side of 2^14 they still fit.
constexpr int kTurnPlaces = 46;
constexpr std::int64_t kLargestSide = std::int64_t{1} << 14;
// Pillow's coordinates have these.
constexpr int kPixelPlaces = 16;

/// Which pixel of the image before the rotation each pixel comes from.
struct Sources {
  at::Tensor row, column;  // int64, broadcast to [n, h, w]
  at::Tensor inside;       // bool [n, h, w]; undefined: all of them
};

Sources straight(std::int64_t h, std::int64_t w, const at::TensorOptions& options) {
  return {at::arange(h, options).view({1, h, 1}), at::arange(w, options).view({1, 1, w}), {}};
}

/// `value` with `places` binary places -> Pillow's 16, rounded half up.
at::Tensor to_pixel_places(const at::Tensor& value, int places) {
  const int drop = places - kPixelPlaces;
  return at::bitwise_right_shift(value + (std::int64_t{1} << (drop - 1)), drop);
}

/// Pillow's affine transform (Geometry.c, affine_fixed): with c and s of the angle, the pixel whose
/// centre is (x + 1/2, y + 1/2) comes from column c (x + 1/2 - w/2) - s (y + 1/2 - h/2) + w/2 and
/// row s (x + 1/2 - w/2) + c (y + 1/2 - h/2) + h/2, where slopes and offsets are rounded apart.
Sources rotated(const Sources& at_rest, const at::Tensor& draws, std::int64_t h, std::int64_t w) {
  ESPALIER_ASSERT(h < kLargestSide && w < kLargestSide);
  const at::Tensor c = draws.select(1, 3).view({-1, 1, 1}), s = draws.select(1, 4).view({-1, 1, 1});
  const at::Tensor slope_c = to_pixel_places(c, kTurnPlaces),
                   slope_s = to_pixel_places(s, kTurnPlaces),
                   slope_minus_s = to_pixel_places(-s, kTurnPlaces);
  // Twice the offsets, which saves the halves.
  const at::Tensor offset_column =
      to_pixel_places(c * (1 - w) - s * (1 - h) + (w << kTurnPlaces), kTurnPlaces + 1);
  const at::Tensor offset_row =
      to_pixel_places(s * (1 - w) + c * (1 - h) + (h << kTurnPlaces), kTurnPlaces + 1);
  const at::Tensor& x = at_rest.column;
  const at::Tensor& y = at_rest.row;
  const at::Tensor column =
      at::bitwise_right_shift(offset_column + slope_c * x + slope_minus_s * y, kPixelPlaces);
  const at::Tensor row =
      at::bitwise_right_shift(offset_row + slope_s * x + slope_c * y, kPixelPlaces);
  const at::Tensor inside =
      column.ge(0).logical_and(column.lt(w)).logical_and(row.ge(0)).logical_and(row.lt(h));
  return {row.clamp(0, h - 1), column.clamp(0, w - 1), inside};
}

}  // namespace

at::Tensor augment_draws(const AugmentOptions& options, std::uint64_t seed, std::int64_t epoch,
                         const std::vector<std::int64_t>& rows) {
  at::Tensor draws = at::zeros({static_cast<std::int64_t>(rows.size()), 5}, at::kLong);
  auto table = draws.accessor<std::int64_t, 2>();
  const auto offsets = static_cast<std::uint64_t>(2 * options.crop_pad + 1);
  const double one = std::ldexp(1.0, kTurnPlaces);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    RandomStream draw(seed, "augment", rows[i], epoch);
    const auto at = static_cast<std::int64_t>(i);
    table[at][0] = static_cast<std::int64_t>(draw.below(offsets));
    table[at][1] = static_cast<std::int64_t>(draw.below(offsets));
    const auto mirrored = static_cast<std::int64_t>(draw.below(2));
    table[at][2] = options.flip ? mirrored : 0;
    const double angle = (2 * draw.uniform() - 1) * options.rotation * std::numbers::pi / 180;
    table[at][3] = std::llround(std::cos(angle) * one);
    table[at][4] = std::llround(std::sin(angle) * one);
  }
  return draws;
}

at::Tensor apply_augment(const at::Tensor& batch, const at::Tensor& draws,
                         const AugmentOptions& options) {
  ESPALIER_ASSERT(batch.dim() == 4 && draws.dim() == 2 && draws.size(0) == batch.size(0));
  if (!options.any()) return batch;
  const std::int64_t n = batch.size(0), c = batch.size(1), h = batch.size(2), w = batch.size(3);
  const std::int64_t pad = options.crop_pad;
  Sources from = straight(h, w, draws.options());
  if (options.rotation > 0) from = rotated(from, draws, h, w);
  const auto drawn = [&](std::int64_t column) { return draws.select(1, column).view({n, 1, 1}); };
  const at::Tensor mirrored = drawn(2);
  const at::Tensor column =
      mirrored * (w - 1) + (1 - 2 * mirrored) * from.column + drawn(1);  // w - 1 - x, or x
  const at::Tensor index = ((from.row + drawn(0)) * (w + 2 * pad) + column)
                               .expand({n, h, w})
                               .reshape({n, 1, h * w})
                               .expand({n, c, h * w});
  const at::Tensor padded = pad > 0 ? at::constant_pad_nd(batch, {pad, pad, pad, pad}, 0) : batch;
  at::Tensor out = padded.reshape({n, c, -1}).gather(2, index).view({n, c, h, w});
  if (from.inside.defined()) out = out * from.inside.unsqueeze(1);
  return out;
}

at::Tensor normalise(const at::Tensor& batch, const std::vector<double>& mean,
                     const std::vector<double>& std, at::ScalarType type) {
  const std::int64_t c = batch.size(1);
  const auto channel = static_cast<std::size_t>(c);
  ESPALIER_ASSERT((mean.empty() || mean.size() == channel) &&
                  (std.empty() || std.size() == channel));
  // One multiplication and one addition; tensors of full() rather than of values, which would be
  // copied from the host and break a recording.
  std::vector<at::Tensor> parts;
  const at::Tensor wide = batch.to(at::kFloat);
  for (std::size_t i = 0; i < channel; ++i) {
    const double scale = 1 / (std.empty() ? 1.0 : std[i]);
    const double shift = mean.empty() ? 0.0 : mean[i];
    parts.push_back(
        wide.narrow(1, static_cast<std::int64_t>(i), 1).mul(scale / 255).sub(shift * scale));
  }
  return (c == 1 ? parts.front() : at::cat(parts, 1)).to(type);
}

}  // namespace espalier
