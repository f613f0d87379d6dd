// NF4 dequantisation on CUDA: a thread turns 8 bytes (16 elements of one block) into values, the
// levels looked up in shared memory. Torch-free. Bandwidth-bound: half a byte read and two (bf16)
// written per element. Products and sums are rounded one by one, so the bits are those of the CPU.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "espalier/base/error.h"
#include "espalier/kernels/nf4/kernels_internal.h"
#include "espalier/kernels/nf4/levels.h"

namespace espalier {
namespace {

constexpr int kThreads = 256, kPerThread = 16;

struct Levels {
  float value[16];
};

template <class T>
__device__ T rounded(float x);
template <>
__device__ float rounded<float>(float x) {
  return x;
}
template <>
__device__ __nv_bfloat16 rounded<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __half rounded<__half>(float x) {
  return __float2half_rn(x);
}

__device__ float scale_of(const Nf4View& w, long long block) {
  if (w.scales != nullptr) return w.scales[block];
  return __fadd_rn(
      __fmul_rn(w.map[w.nested_scales[block]], w.nested_absmax[block / w.nested_block]), w.offset);
}

template <class T>
__global__ void dequantize_kernel(Nf4View w, Levels levels, long long begin, long long end,
                                  T* __restrict__ out) {
  __shared__ float table[16];
  if (threadIdx.x < 16) table[threadIdx.x] = levels.value[threadIdx.x];
  __syncthreads();
  const long long first =
      begin + (static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x) * kPerThread;
  if (first >= end) return;
  // Blocks are multiples of 32 elements, so an aligned run of 16 never crosses one.
  if (begin % kPerThread == 0 && first + kPerThread <= end) {
    const float scale = scale_of(w, first / w.block);
    const unsigned long long bytes =
        *reinterpret_cast<const unsigned long long*>(w.packed + first / 2);
    __align__(16) T values[kPerThread];
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int shift = (i / 2) * 8 + (i % 2 == 0 ? 4 : 0);
      values[i] = rounded<T>(__fmul_rn(table[(bytes >> shift) & 15], scale));
    }
    T* target = out + (first - begin);
#pragma unroll
    for (int i = 0; i < static_cast<int>(kPerThread * sizeof(T) / 16); ++i)
      reinterpret_cast<uint4*>(target)[i] = reinterpret_cast<const uint4*>(values)[i];
    return;
  }
  for (long long i = first; i < end && i < first + kPerThread; ++i) {
    const int shift = i % 2 == 0 ? 4 : 0;
    const float level = table[(w.packed[i / 2] >> shift) & 15];
    out[i - begin] = rounded<T>(__fmul_rn(level, scale_of(w, i / w.block)));
  }
}

template <class T>
void launch(const Nf4View& w, long long begin, long long end, void* out, cudaStream_t stream) {
  Levels levels;
  for (int i = 0; i < 16; ++i) levels.value[i] = nf4_levels()[i];
  // 2^30 blocks of 4096 elements hold any weight that fits a device.
  const long long runs = (end - begin + kPerThread - 1) / kPerThread;
  const auto blocks = static_cast<unsigned>((runs + kThreads - 1) / kThreads);
  if (blocks == 0) return;
  dequantize_kernel<T>
      <<<blocks, kThreads, 0, stream>>>(w, levels, begin, end, static_cast<T*>(out));
}

}  // namespace

void launch_nf4_dequantize(const Nf4View& weight, std::int64_t begin, std::int64_t end, void* out,
                           Nf4Output type, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (type == Nf4Output::kFloat)
    launch<float>(weight, begin, end, out, on);
  else if (type == Nf4Output::kBFloat16)
    launch<__nv_bfloat16>(weight, begin, end, out, on);
  else
    launch<__half>(weight, begin, end, out, on);
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess)
    throw Error(ErrorKind::kEnvironment, "nf4", cudaGetErrorString(status));
}

}  // namespace espalier
