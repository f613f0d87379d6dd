// The meaning of NF4, element by element. The tests hold the fast paths to these loops.
#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/kernels/nf4/nf4.h"

namespace espalier {
namespace {

int level_below(float x) {
  int index = 0;
  for (std::size_t i = 0; i + 1 < nf4_levels().size(); ++i) {
    if ((nf4_levels()[i] + nf4_levels()[i + 1]) / 2.0f < x) index = static_cast<int>(i) + 1;
  }
  return index;
}

/// The nearest of 65536 points of [-1, 1]: where bitsandbytes' table on the CPU has entries.
float table_point(float x) {
  const float entry = std::floor((x + 1.0f) * 32767.5f + 0.5f);
  return std::fmin(std::fmax(entry, 0.0f), 65535.0f) / 32767.5f - 1.0f;
}

int nearest_in_map(float x) {
  int best = 0;
  for (int i = 1; i < 256; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (std::fabs(x - nf4_dynamic_map()[at]) <
        std::fabs(x - nf4_dynamic_map()[static_cast<std::size_t>(best)]))
      best = i;
  }
  return best;
}

float largest(const float* x, std::int64_t count) {
  float value = 0;
  for (std::int64_t i = 0; i < count; ++i) value = std::fmax(value, std::fabs(x[i]));
  return value;
}

}  // namespace

Nf4Weight nf4_quantize_reference(const at::Tensor& weight, const Nf4Options& options) {
  const at::Tensor values = weight.to(at::kFloat).contiguous();
  const float* x = values.const_data_ptr<float>();
  const std::int64_t count = values.numel();
  Nf4Weight out;
  out.shape = weight.sizes().vec();
  out.block = options.block;
  out.packed = at::zeros({(count + 1) / 2}, at::kByte);
  out.absmax = at::empty({out.blocks()}, at::kFloat);
  auto* packed = out.packed.data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < count + count % 2; ++i) {
    const std::int64_t block = i / out.block, first = block * out.block,
                       length = std::min(out.block, count - first);
    int index = 7;
    if (i < count) {
      const float peak = largest(x + first, length), divisor = std::fmax(peak, 1e-38f);
      const bool whole = length == out.block;
      out.absmax.data_ptr<float>()[block] = whole ? peak : divisor;
      const float scaled = whole ? x[i] * (1.0f / divisor) : x[i] / divisor;
      index = level_below(std::fmin(std::fmax(scaled, -1.0f), 1.0f));
    }
    packed[i / 2] = static_cast<std::uint8_t>(packed[i / 2] | (i % 2 == 0 ? index << 4 : index));
  }
  if (!options.double_quantised) return out;
  const at::Tensor mean = out.absmax.mean(), centred = (out.absmax - mean).contiguous();
  const std::int64_t blocks = out.blocks();
  out.nested_offset = mean.item<float>();
  out.nested_map = at::empty({256}, at::kFloat);
  for (std::int64_t i = 0; i < 256; ++i)
    out.nested_map.data_ptr<float>()[i] = nf4_dynamic_map()[static_cast<std::size_t>(i)];
  out.nested_absmax = at::empty({(blocks + out.nested_block - 1) / out.nested_block}, at::kFloat);
  out.absmax = at::empty({blocks}, at::kByte);
  const float* scales = centred.const_data_ptr<float>();
  for (std::int64_t i = 0; i < blocks; ++i) {
    const std::int64_t group = i / out.nested_block, first = group * out.nested_block;
    const float peak = largest(scales + first, std::min(out.nested_block, blocks - first));
    out.nested_absmax.data_ptr<float>()[group] = peak;
    out.absmax.data_ptr<std::uint8_t>()[i] =
        static_cast<std::uint8_t>(nearest_in_map(table_point(peak > 0 ? scales[i] / peak : 0.0f)));
  }
  return out;
}

at::Tensor nf4_dequantize_reference(const Nf4Weight& weight) {
  const at::Tensor scales = nf4_scales(weight).to(at::kFloat).contiguous();
  at::Tensor out = at::empty(weight.shape, at::kFloat);
  for (std::int64_t i = 0; i < weight.numel(); ++i) {
    const std::uint8_t byte = weight.packed.const_data_ptr<std::uint8_t>()[i / 2];
    const auto level = static_cast<std::size_t>(i % 2 == 0 ? byte >> 4 : byte & 15);
    out.data_ptr<float>()[i] =
        nf4_levels()[level] * scales.const_data_ptr<float>()[i / weight.block];
  }
  return out;
}

}  // namespace espalier
