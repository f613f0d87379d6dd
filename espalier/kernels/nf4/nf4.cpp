// Nf4Weight itself, quantising and dequantising on either device.
#include "espalier/kernels/nf4/nf4.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/cuda_internal.h"
#include "espalier/kernels/nf4/kernels_internal.h"

namespace espalier {
namespace {

constexpr std::int64_t kGrainElements = 1 << 15;

Nf4Output output_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return Nf4Output::kFloat;
    case at::kBFloat16:
      return Nf4Output::kBFloat16;
    case at::kHalf:
      return Nf4Output::kHalf;
    default:
      break;
  }
  throw Error(
      ErrorKind::kUnsupported, "nf4",
      format("weights dequantise to float32, bfloat16 or float16, not {}", c10::toString(type)));
}

/// Pointers of `weight`; its tensors must outlive the view.
Nf4View view_of(const Nf4Weight& weight) {
  Nf4View view;
  view.packed = weight.packed.const_data_ptr<std::uint8_t>();
  if (weight.nested()) {
    view.nested_scales = weight.absmax.const_data_ptr<std::uint8_t>();
    view.map = weight.nested_map.const_data_ptr<float>();
    view.nested_absmax = weight.nested_absmax.const_data_ptr<float>();
  } else {
    view.scales = weight.absmax.const_data_ptr<float>();
  }
  view.offset = weight.nested_offset;
  view.block = weight.block;
  view.nested_block = weight.nested_block;
  return view;
}

at::Tensor dynamic_map_tensor() {
  at::Tensor map = at::empty({256}, at::kFloat);
  std::copy(nf4_dynamic_map().begin(), nf4_dynamic_map().end(), map.data_ptr<float>());
  return map;
}

/// Levels and float32 scales of a contiguous float32 CPU matrix.
void quantize_values(const at::Tensor& values, Nf4Weight& out) {
  const std::int64_t count = values.numel(), blocks = out.blocks();
  out.packed = at::zeros({(count + 1) / 2}, at::kByte);
  out.absmax = at::empty({blocks}, at::kFloat);
  const float* x = values.const_data_ptr<float>();
  float* scales = out.absmax.data_ptr<float>();
  auto* packed = out.packed.data_ptr<std::uint8_t>();
  std::atomic<bool> finite{true};
  at::parallel_for(
      0, blocks, std::max<std::int64_t>(1, kGrainElements / out.block),
      [&](std::int64_t begin, std::int64_t end) {
        // Of an odd last element the missing neighbour is packed as the value 0.
        std::vector<std::uint8_t> q(static_cast<std::size_t>(out.block) + 1);
        for (std::int64_t block = begin; block < end; ++block) {
          const std::int64_t first = block * out.block, length = std::min(out.block, count - first);
          q[static_cast<std::size_t>(length)] = 7;
          if (!nf4_quantize_block_cpu(x + first, length, length == out.block, scales + block,
                                      q.data()))
            finite = false;
          for (std::int64_t i = 0; i < length; i += 2) {
            const auto at = static_cast<std::size_t>(i);
            packed[(first + i) / 2] = static_cast<std::uint8_t>((q[at] << 4) | q[at + 1]);
          }
        }
      });
  if (!finite) throw Error(ErrorKind::kInput, "nf4", "the weight holds values that are not finite");
}

/// Replaces float32 scales by 8-bit ones.
void quantize_scales(Nf4Weight& weight) {
  const at::Tensor mean = weight.absmax.mean();
  weight.nested_offset = mean.item<float>();
  const at::Tensor centred = (weight.absmax - mean).contiguous();
  const std::int64_t blocks = centred.numel(),
                     groups = (blocks + weight.nested_block - 1) / weight.nested_block;
  weight.nested_map = dynamic_map_tensor();
  weight.nested_absmax = at::empty({groups}, at::kFloat);
  weight.absmax = at::empty({blocks}, at::kByte);
  const float* x = centred.const_data_ptr<float>();
  for (std::int64_t group = 0; group < groups; ++group) {
    const std::int64_t first = group * weight.nested_block;
    nf4_quantize_scales_cpu(x + first, std::min(weight.nested_block, blocks - first),
                            weight.nested_map.const_data_ptr<float>(),
                            weight.nested_absmax.data_ptr<float>() + group,
                            weight.absmax.data_ptr<std::uint8_t>() + first);
  }
}

}  // namespace

std::int64_t Nf4Weight::numel() const {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  return count;
}

std::int64_t Nf4Weight::blocks() const { return (numel() + block - 1) / block; }

std::uint64_t Nf4Weight::nbytes() const {
  std::uint64_t bytes = packed.nbytes() + absmax.nbytes();
  if (nested()) bytes += nested_absmax.nbytes() + nested_map.nbytes();
  return bytes;
}

Nf4Weight Nf4Weight::to(at::Device device) const {
  Nf4Weight out = *this;
  out.packed = packed.to(device);
  out.absmax = absmax.to(device);
  if (nested()) {
    out.nested_absmax = nested_absmax.to(device);
    out.nested_map = nested_map.to(device);
  }
  return out;
}

Nf4Weight nf4_quantize(const at::Tensor& weight, const Nf4Options& options) {
  ESPALIER_ASSERT(weight.dim() == 2);
  if (options.block < 32 || options.block > 4096 ||
      !std::has_single_bit(static_cast<std::uint64_t>(options.block))) {
    throw Error(ErrorKind::kUsage, "nf4",
                format("block size {} is not a power of two in 32-4096", options.block));
  }
  output_type(weight.scalar_type());
  const at::NoGradGuard no_grad;
  Nf4Weight out;
  out.shape = weight.sizes().vec();
  out.block = options.block;
  quantize_values(weight.to(at::kCPU, at::kFloat).contiguous(), out);
  if (options.double_quantised) quantize_scales(out);
  return weight.device().is_cpu() ? out : out.to(weight.device());
}

at::Tensor nf4_scales(const Nf4Weight& weight) {
  if (!weight.nested()) return weight.absmax;
  const at::Tensor per_block =
      weight.nested_absmax.repeat_interleave(weight.nested_block).narrow(0, 0, weight.blocks());
  return weight.nested_map.index_select(0, weight.absmax.to(at::kInt))
      .mul_(per_block)
      .add_(weight.nested_offset);
}

at::Tensor nf4_dequantize(const Nf4Weight& weight, at::ScalarType type) {
  return nf4_dequantize_rows(weight, 0, weight.shape[0], type);
}

at::Tensor nf4_dequantize_rows(const Nf4Weight& weight, std::int64_t first, std::int64_t count,
                               at::ScalarType type) {
  if (weight.rounding != at::kFloat && weight.rounding != type)
    return nf4_dequantize_rows(weight, first, count, weight.rounding).to(type);
  ESPALIER_ASSERT(first >= 0 && count >= 0 && first + count <= weight.shape[0]);
  const std::int64_t columns = weight.shape[1], begin = first * columns,
                     end = begin + count * columns;
  const Nf4Output output = output_type(type);
  at::Tensor out =
      at::empty({count, columns}, at::TensorOptions().dtype(type).device(weight.device()));
  const Nf4View view = view_of(weight);
  if (weight.device().is_cuda() && cuda_kernels_built()) {
    run_on_current_stream(weight.device(), [&](void* stream) {
      launch_nf4_dequantize(view, begin, end, out.mutable_data_ptr(), output, stream);
    });
    return out;
  }
  if (!weight.device().is_cpu()) {
    throw Error(ErrorKind::kEnvironment, "nf4",
                format("this build has no kernels for {}", weight.device().str()));
  }
  const std::int64_t grain = (kGrainElements + weight.block - 1) / weight.block * weight.block;
  auto* bytes = static_cast<std::byte*>(out.mutable_data_ptr());
  const auto size = static_cast<std::int64_t>(out.element_size());
  at::parallel_for(begin, end, grain, [&](std::int64_t from, std::int64_t to) {
    nf4_dequantize_cpu(view, from, to, bytes + (from - begin) * size, output);
  });
  return out;
}

#ifndef ESPALIER_CUDA
// Linked, never reached: dispatch asks cuda_kernels_built() first.
void launch_nf4_dequantize(const Nf4View&, std::int64_t, std::int64_t, void*, Nf4Output, void*) {
  ESPALIER_ASSERT(cuda_kernels_built());
}
#endif

}  // namespace espalier
