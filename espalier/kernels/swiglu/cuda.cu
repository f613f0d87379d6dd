// silu_mul and its backward on CUDA: one thread per element, arithmetic in float32.
// Bandwidth-bound.
#include <cuda_runtime.h>

#include "espalier/base/error.h"
#include "espalier/kernels/cuda_float.cuh"
#include "espalier/kernels/swiglu/kernels_internal.h"

namespace espalier {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void silu_mul_kernel(const T* gate, const T* __restrict__ up, T* out, long long count) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const float x = to_float(gate[i]);
  const float activated = to_float(from_float<T>(x / (1.0f + expf(-x))));
  out[i] = from_float<T>(activated * to_float(up[i]));
}

template <class T>
__global__ void backward_kernel(const T* __restrict__ gate, const T* __restrict__ up,
                                const T* __restrict__ g, T* __restrict__ dgate, T* __restrict__ dup,
                                long long count) {
  const long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const float x = to_float(gate[i]), d = to_float(g[i]);
  const float sigma = 1.0f / (1.0f + expf(-x));
  dgate[i] = from_float<T>(d * to_float(up[i]) * (sigma * (1.0f + x * (1.0f - sigma))));
  dup[i] = from_float<T>(d * (x * sigma));
}

unsigned blocks(std::int64_t count) {
  return static_cast<unsigned>((count + kThreads - 1) / kThreads);
}

void check_launch() {
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess)
    throw Error(ErrorKind::kEnvironment, "silu_mul", cudaGetErrorString(status));
}

template <class T>
void forward(const void* gate, const void* up, void* out, std::int64_t count, void* stream) {
  silu_mul_kernel<T><<<blocks(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const T*>(gate), static_cast<const T*>(up), static_cast<T*>(out), count);
}

template <class T>
void backward(const void* gate, const void* up, const void* g, void* dgate, void* dup,
              std::int64_t count, void* stream) {
  backward_kernel<T><<<blocks(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      static_cast<const T*>(gate), static_cast<const T*>(up), static_cast<const T*>(g),
      static_cast<T*>(dgate), static_cast<T*>(dup), count);
}

}  // namespace

void launch_silu_mul(const void* gate, const void* up, void* out, std::int64_t count, bool bf16,
                     void* stream) {
  if (count == 0) return;
  if (bf16)
    forward<__nv_bfloat16>(gate, up, out, count, stream);
  else
    forward<float>(gate, up, out, count, stream);
  check_launch();
}

void launch_silu_mul_backward(const void* gate, const void* up, const void* g, void* dgate,
                              void* dup, std::int64_t count, bool bf16, void* stream) {
  if (count == 0) return;
  if (bf16)
    backward<__nv_bfloat16>(gate, up, g, dgate, dup, count, stream);
  else
    backward<float>(gate, up, g, dgate, dup, count, stream);
  check_launch();
}

}  // namespace espalier
