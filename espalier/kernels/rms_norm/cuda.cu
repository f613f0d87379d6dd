// rms_norm on CUDA: one block per row, the row kept in registers or re-read from L1, fp32
// accumulation, one warp-shuffle reduction. Torch-free, so it compiles in a second.
// Bandwidth-bound: 2 passes over the row, the second from cache.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "espalier/base/error.h"
#include "espalier/kernels/rms_norm/kernels_internal.h"

namespace espalier {
namespace {

constexpr int kThreads = 256;

__device__ float to_float(float x) { return x; }
__device__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T>
__device__ T from_float(float x);
template <>
__device__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

/// The sum over the block, in every thread; the same order of additions whatever the grid.
__device__ float block_sum(float value) {
  __shared__ float partial[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0;
  for (int i = 0; i < kThreads / 32; ++i) total += partial[i];
  return total;
}

template <class T>
__global__ void rms_norm_kernel(const T* __restrict__ x, const T* __restrict__ weight,
                                T* __restrict__ y, long long width, float eps) {
  const T* row = x + static_cast<long long>(blockIdx.x) * width;
  T* out = y + static_cast<long long>(blockIdx.x) * width;
  float sum = 0;
  for (long long i = threadIdx.x; i < width; i += kThreads) {
    const float v = to_float(row[i]);
    sum += v * v;
  }
  const float scale = rsqrtf(block_sum(sum) / static_cast<float>(width) + eps);
  for (long long i = threadIdx.x; i < width; i += kThreads) {
    const float normed = to_float(from_float<T>(to_float(row[i]) * scale));
    out[i] = from_float<T>(to_float(weight[i]) * normed);
  }
}

template <class T>
void launch(const RmsNormParams& p, cudaStream_t stream) {
  // The grid's x dimension holds 2^31 - 1 blocks; rows beyond that go in further launches.
  constexpr long long kMaxBlocks = 2147483647;
  for (long long first = 0; first < p.rows; first += kMaxBlocks) {
    const long long blocks = p.rows - first < kMaxBlocks ? p.rows - first : kMaxBlocks;
    rms_norm_kernel<T><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
        static_cast<const T*>(p.x) + first * p.width, static_cast<const T*>(p.weight),
        static_cast<T*>(p.y) + first * p.width, p.width, p.eps);
  }
}

}  // namespace

void launch_rms_norm(const RmsNormParams& params, void* stream) {
  if (params.bf16)
    launch<__nv_bfloat16>(params, static_cast<cudaStream_t>(stream));
  else
    launch<float>(params, static_cast<cudaStream_t>(stream));
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess) {
    throw Error(ErrorKind::kEnvironment, "rms_norm", cudaGetErrorString(status));
  }
}

}  // namespace espalier
