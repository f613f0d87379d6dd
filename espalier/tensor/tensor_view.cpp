// Views of foreign memory, shapes in messages, and what we ask of devices. CUDA is reached through
// ATen's hooks only, so the same file serves builds with and without it.
#include "espalier/tensor/tensor_view.h"

#include <array>
#include <charconv>
#include <cstring>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"

namespace espalier {
namespace {

constexpr std::array<at::ScalarType, 12> kScalarTypes{
    at::kDouble, at::kFloat, at::kHalf,  at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2,
    at::kLong,   at::kInt,   at::kShort, at::kChar,     at::kByte,          at::kBool};

std::int64_t cuda_device_count() {
  return at::hasCUDA() ? static_cast<std::int64_t>(at::detail::getCUDAHooks().deviceCount()) : 0;
}

at::Device cuda_device(std::int64_t index) {
  if (!at::hasCUDA()) {
#ifdef ESPALIER_CUDA
    throw Error(ErrorKind::kEnvironment, "--device",
                "cuda was asked for, but no CUDA driver or device answers")
        .hint("run `espalier doctor`, or pass --device cpu");
#else
    throw Error(ErrorKind::kEnvironment, "--device",
                "cuda was asked for, but this build has no CUDA")
        .hint("build with `make CUDA=1`, or pass --device cpu");
#endif
  }
  const std::int64_t count = cuda_device_count();
  if (index >= count) {
    throw Error(ErrorKind::kEnvironment, "--device",
                count == 0
                    ? format("cuda:{} was asked for, but this machine shows no CUDA device", index)
                    : format("cuda:{} was asked for, but this machine has cuda:0 to cuda:{}", index,
                             count - 1))
        .hint("run `espalier doctor`, or pass --device auto");
  }
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

}  // namespace

at::ScalarType to_scalar_type(Dtype dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  ESPALIER_ASSERT(index < kScalarTypes.size());
  return kScalarTypes[index];
}

Dtype to_dtype(at::ScalarType type) {
  for (std::size_t i = 0; i < kScalarTypes.size(); ++i) {
    if (kScalarTypes[i] == type) return static_cast<Dtype>(i);
  }
  throw Error(ErrorKind::kUnsupported, "dtype",
              format("no file format of ours stores {}", at::toString(type)));
}

at::Tensor view_bytes(std::span<const std::byte> bytes, Dtype dtype, at::IntArrayRef shape,
                      std::shared_ptr<const void> owner) {
  std::int64_t numel = 1;
  for (const std::int64_t size : shape) {
    ESPALIER_ASSERT(size >= 0);
    ESPALIER_ASSERT(!__builtin_mul_overflow(numel, size, &numel));
  }
  std::int64_t expected = 0;
  ESPALIER_ASSERT(!__builtin_mul_overflow(numel, dtype_size(dtype), &expected));
  if (static_cast<std::int64_t>(bytes.size()) != expected) {
    throw Error(ErrorKind::kInternal, "view_bytes",
                format("{} bytes for shape {} of {}, which needs {}", bytes.size(),
                       shape_text(shape), dtype_name(dtype), expected));
  }
  const auto options = at::TensorOptions().dtype(to_scalar_type(dtype));
  if (numel == 0) return at::empty(shape, options);
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  if (address % static_cast<std::uintptr_t>(dtype_size(dtype)) != 0) {
    // A file may place a tensor at an odd offset; typed loads from there are undefined behaviour.
    at::Tensor copy = at::empty(shape, options);
    std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
    return copy;
  }
  // from_blob wants a mutable pointer; the contract says that nobody writes through it.
  void* data = const_cast<std::byte*>(bytes.data());
  return at::from_blob(
      data, shape, [keep = std::move(owner)](void*) mutable { keep.reset(); }, options);
}

std::span<const std::byte> tensor_bytes(const at::Tensor& contiguous_cpu) {
  ESPALIER_ASSERT(contiguous_cpu.device().is_cpu() && contiguous_cpu.is_contiguous());
  return {static_cast<const std::byte*>(contiguous_cpu.const_data_ptr()), contiguous_cpu.nbytes()};
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

void check_shape(const at::Tensor& tensor, at::IntArrayRef expected, std::string_view name) {
  const at::IntArrayRef found = tensor.sizes();
  bool equal = found.size() == expected.size();
  for (std::size_t i = 0; equal && i < found.size(); ++i)
    equal = expected[i] == -1 || expected[i] == found[i];
  if (equal) return;
  throw Error(ErrorKind::kInput, name,
              format("has shape {}, expected {}", shape_text(found), shape_text(expected)));
}

bool has_cuda() { return cuda_device_count() > 0; }

at::Device parse_device(std::string_view text) {
  if (text == "cpu") return at::Device(at::kCPU);
  if (text == "auto") return has_cuda() ? cuda_device(0) : at::Device(at::kCPU);
  if (text == "cuda") return cuda_device(0);
  constexpr std::string_view kPrefix = "cuda:";
  if (text.starts_with(kPrefix)) {
    const std::string_view digits = text.substr(kPrefix.size());
    std::int64_t index = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error == std::errc() && end == digits.data() + digits.size() && index >= 0 && index < 128) {
      return cuda_device(index);
    }
  }
  throw Error(ErrorKind::kUsage, "--device",
              format("\"{}\" is not a device; expected cpu, cuda, cuda:N or auto", text))
      .hint("pass --device auto to use a GPU when there is one");
}

at::Generator make_generator(std::uint64_t seed, std::string_view name, std::int64_t rank,
                             std::int64_t step, at::Device device) {
  const std::uint64_t stream = stream_seed(seed, name, rank, step);
  if (device.is_cpu()) return at::detail::createCPUGenerator(stream);
  at::Generator generator = at::detail::getCUDAHooks().getNewGenerator(device.index());
  generator.set_current_seed(stream);
  return generator;
}

std::int64_t peak_device_bytes(at::Device device) {
  if (!device.is_cuda() || !has_cuda()) return 0;
  at::DeviceAllocator* allocator = at::getDeviceAllocator(at::kCUDA);
  if (!allocator->initialized()) return 0;
  const at::DeviceIndex index = device.has_index() ? device.index() : at::DeviceIndex{0};
  const auto stats = allocator->getDeviceStats(index);
  return stats.allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)]
      .peak;
}

std::int64_t free_device_bytes(at::Device device) {
  if (!device.is_cuda() || !has_cuda()) return 0;
  try {
    const at::DeviceIndex index = device.has_index() ? device.index() : at::DeviceIndex{0};
    return static_cast<std::int64_t>(at::getDeviceAllocator(at::kCUDA)->getMemoryInfo(index).first);
  } catch (const c10::NotImplementedError&) {
    return 0;
  }
}

void synchronize(at::Device device) {
  if (!device.is_cuda()) return;
  const c10::impl::VirtualGuardImpl guard(at::kCUDA);
  guard.synchronizeDevice(device.has_index() ? device.index() : at::DeviceIndex{0});
}

}  // namespace espalier
