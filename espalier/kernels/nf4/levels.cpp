// See levels.h. Source: bitsandbytes; the levels are quantiles of N(0, 1) scaled to
// [-1, 1], the map is the signed dynamic type of "8-bit optimizers via block-wise quantization".
#include "espalier/kernels/nf4/levels.h"

#include <algorithm>
#include <vector>

#include <ATen/ATen.h>

#include "espalier/base/error.h"

namespace espalier {

const std::array<float, 16>& nf4_levels() {
  static constexpr std::array<float, 16> kLevels{
      -1.0f,
      -0.6961928009986877f,
      -0.5250730514526367f,
      -0.39491748809814453f,
      -0.28444138169288635f,
      -0.18477343022823334f,
      -0.09105003625154495f,
      0.0f,
      0.07958029955625534f,
      0.16093020141124725f,
      0.24611230194568634f,
      0.33791524171829224f,
      0.44070982933044434f,
      0.5626170039176941f,
      0.7229568362236023f,
      1.0f,
  };
  return kLevels;
}

const std::array<float, 256>& nf4_dynamic_map() {
  static const std::array<float, 256> map = [] {
    // Decade i holds 2^i values: midpoints of an even division of [0.1, 1], times 10^(i-6). The
    // rounding of libtorch's linspace is part of the definition.
    constexpr std::array<double, 7> kDecades{1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
    std::vector<float> values{0.0f, 1.0f};
    for (std::size_t i = 0; i < kDecades.size(); ++i) {
      const std::int64_t count = std::int64_t{1} << i;
      const at::Tensor edges = at::linspace(0.1, 1, count + 1, at::kFloat);
      const at::Tensor middles = (edges.narrow(0, 0, count) + edges.narrow(0, 1, count)) / 2.0;
      const at::Tensor scaled = (middles * kDecades[i]).contiguous();
      for (std::int64_t j = 0; j < count; ++j) {
        values.push_back(scaled.const_data_ptr<float>()[j]);
        values.push_back(-scaled.const_data_ptr<float>()[j]);
      }
    }
    ESPALIER_ASSERT(values.size() == 256);
    std::sort(values.begin(), values.end());
    std::array<float, 256> out{};
    std::copy(values.begin(), values.end(), out.begin());
    return out;
  }();
  return map;
}

}  // namespace espalier
