// Between bytes and at::Tensor: dtype conversion, views of mapped memory, shapes in messages,
// devices, generators.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/tensor/dtype.h"

namespace espalier {

at::ScalarType to_scalar_type(Dtype dtype);
Dtype to_dtype(at::ScalarType type);

/// A tensor over foreign memory, without a copy; `owner` is kept alive as long as any tensor shares
/// the storage. The memory may be read-only (a mapped file): writing to the tensor is undefined.
/// Empty spans give empty tensors. Throws Error(kInternal) when the byte count does not match shape
/// and dtype.
at::Tensor view_bytes(std::span<const std::byte> bytes, Dtype dtype, at::IntArrayRef shape,
                      std::shared_ptr<const void> owner);

/// The elements of a contiguous CPU tensor as bytes.
std::span<const std::byte> tensor_bytes(const at::Tensor& contiguous_cpu);

/// "[8, 128, 576]".
std::string shape_text(at::IntArrayRef shape);

/// Throws Error(kInput) with found and expected shapes unless `tensor` has exactly this shape (-1
/// matches any size).
void check_shape(const at::Tensor& tensor, at::IntArrayRef expected, std::string_view name);

/// "cpu", "cuda", "cuda:1", "auto" (cuda when there is one). Throws Error(kUsage) for other text
/// and Error(kEnvironment) when the device is absent or this build has no CUDA.
at::Device parse_device(std::string_view text);

/// True when a CUDA device can be used by this build on this machine.
bool has_cuda();

/// A generator on `device` seeded with stream_seed(seed, name, rank, step).
at::Generator make_generator(std::uint64_t seed, std::string_view name, std::int64_t rank,
                             std::int64_t step, at::Device device);

/// Peak bytes allocated on a CUDA device by libtorch since start; 0 for CPU.
std::int64_t peak_device_bytes(at::Device device);

/// Free bytes of a CUDA device; 0 for CPU and where libtorch cannot say.
std::int64_t free_device_bytes(at::Device device);

/// Waits for a CUDA device's queued work; nothing on CPU. For timings.
void synchronize(at::Device device);

}  // namespace espalier
