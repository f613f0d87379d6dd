// keyed_dropout on CUDA: one element per thread and stride; the mask costs a dozen integer
// operations, so the op stays bandwidth-bound. The counter is read on the device.
#include <cuda_runtime.h>

#include "espalier/base/error.h"
#include "espalier/kernels/cuda_float.cuh"
#include "espalier/kernels/keyed_dropout/kernels_internal.h"

namespace espalier {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void dropout_kernel(DropoutParams p, long long count) {
  const std::uint64_t key = mask_key(p.seed, p.stream, static_cast<std::uint64_t>(*p.counter));
  const T* x = static_cast<const T*>(p.x);
  T* y = static_cast<T*>(p.y);
  const long long stride = static_cast<long long>(gridDim.x) * kThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += stride) {
    const bool kept = element_hash(key, static_cast<std::uint64_t>(i)) >= p.threshold;
    const float value = kept ? to_float(x[i]) * p.scale : 0.0f;
    y[i] = from_float<T>(p.add ? to_float(y[i]) + value : value);
  }
}

}  // namespace

void launch_keyed_dropout(const DropoutParams& params, std::int64_t count, void* stream) {
  if (count == 0) return;
  constexpr long long kMaxBlocks = 1 << 20;
  const long long needed = (count + kThreads - 1) / kThreads;
  const auto blocks = static_cast<unsigned>(needed < kMaxBlocks ? needed : kMaxBlocks);
  const auto on = static_cast<cudaStream_t>(stream);
  if (params.bf16)
    dropout_kernel<__nv_bfloat16><<<blocks, kThreads, 0, on>>>(params, count);
  else
    dropout_kernel<float><<<blocks, kThreads, 0, on>>>(params, count);
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess)
    throw Error(ErrorKind::kEnvironment, "dropout", cudaGetErrorString(status));
}

}  // namespace espalier
