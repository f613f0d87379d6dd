// See augment.h.
#include "espalier/data/augment.h"

#include <numbers>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/random.h"

namespace espalier {
namespace {

constexpr std::int64_t kAngleSteps = 1000000;

/// Which pixel of the image before the rotation each pixel comes from.
struct Sources {
  at::Tensor row, column;  // int64, broadcast to [n, h, w]
  at::Tensor inside;       // bool [n, h, w]; undefined: all of them
};

Sources straight(std::int64_t h, std::int64_t w, const at::TensorOptions& options) {
  return {at::arange(h, options).view({1, h, 1}), at::arange(w, options).view({1, 1, w}), {}};
}

Sources rotated(const Sources& at_rest, const at::Tensor& draws, double degrees, std::int64_t h,
                std::int64_t w) {
  const double unit = degrees / static_cast<double>(kAngleSteps) * std::numbers::pi / 180;
  const at::Tensor angle = draws.select(1, 3).to(at::kFloat).mul(unit).view({-1, 1, 1});
  const at::Tensor cos = angle.cos(), sin = angle.sin();
  const double middle_y = 0.5 * static_cast<double>(h - 1),
               middle_x = 0.5 * static_cast<double>(w - 1);
  const at::Tensor y = at_rest.row.to(at::kFloat) - middle_y,
                   x = at_rest.column.to(at::kFloat) - middle_x;
  const at::Tensor column = (x * cos - y * sin + middle_x).round().to(at::kLong),
                   row = (x * sin + y * cos + middle_y).round().to(at::kLong);
  const at::Tensor inside =
      column.ge(0).logical_and(column.lt(w)).logical_and(row.ge(0)).logical_and(row.lt(h));
  return {row.clamp(0, h - 1), column.clamp(0, w - 1), inside};
}

}  // namespace

at::Tensor augment_draws(const AugmentOptions& options, std::uint64_t seed, std::int64_t epoch,
                         const std::vector<std::int64_t>& rows) {
  at::Tensor draws = at::zeros({static_cast<std::int64_t>(rows.size()), 4}, at::kLong);
  if (!options.any()) return draws;
  auto table = draws.accessor<std::int64_t, 2>();
  const auto offsets = static_cast<std::uint64_t>(2 * options.crop_pad + 1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    RandomStream draw(seed, "augment", rows[i], epoch);
    const auto at = static_cast<std::int64_t>(i);
    table[at][0] = static_cast<std::int64_t>(draw.below(offsets));
    table[at][1] = static_cast<std::int64_t>(draw.below(offsets));
    table[at][2] = options.flip ? static_cast<std::int64_t>(draw.below(2)) : 0;
    table[at][3] = static_cast<std::int64_t>(draw.below(2 * kAngleSteps + 1)) - kAngleSteps;
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
  if (options.rotation > 0) from = rotated(from, draws, options.rotation, h, w);
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
