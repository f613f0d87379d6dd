// rope on CUDA, in place: one thread per pair of elements. Products are rounded to the dtype before
// the sum, as on the CPU.
#include <cuda_runtime.h>

#include "espalier/base/error.h"
#include "espalier/kernels/cuda_float.cuh"
#include "espalier/kernels/rope/kernels_internal.h"

namespace espalier {
namespace {

constexpr int kThreads = 256;

template <class T>
__device__ float rounded(float x) {
  return to_float(from_float<T>(x));
}

template <class T, bool kBack>
__global__ void rope_kernel(T* __restrict__ x, const T* __restrict__ cosine,
                            const T* __restrict__ sine, long long pairs, long long tokens,
                            long long heads, long long head_dim) {
  const long long index = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= pairs) return;
  const long long half = head_dim / 2, i = index % half, head = index / half;
  const long long table = head / heads % tokens * head_dim;
  T* low = x + head * head_dim + i;
  T* high = low + half;
  const float a = to_float(*low), b = to_float(*high);
  const float c = to_float(cosine[table + i]), s = to_float(sine[table + i]);
  const float c2 = to_float(cosine[table + half + i]), s2 = to_float(sine[table + half + i]);
  if (kBack) {
    *low = from_float<T>(a * c + b * s2);
    *high = from_float<T>(b * c2 - a * s);
  } else {
    *low = from_float<T>(rounded<T>(a * c) - rounded<T>(b * s));
    *high = from_float<T>(rounded<T>(b * c2) + rounded<T>(a * s2));
  }
}

template <class T>
void launch(const RopeParams& p, cudaStream_t stream) {
  const long long pairs = p.rows * p.heads * (p.head_dim / 2);
  if (pairs == 0) return;
  const auto blocks = static_cast<unsigned>((pairs + kThreads - 1) / kThreads);
  const auto kernel = p.back ? rope_kernel<T, true> : rope_kernel<T, false>;
  kernel<<<blocks, kThreads, 0, stream>>>(static_cast<T*>(p.x), static_cast<const T*>(p.cosine),
                                          static_cast<const T*>(p.sine), pairs, p.tokens, p.heads,
                                          p.head_dim);
}

}  // namespace

void launch_rope(const RopeParams& params, void* stream) {
  if (params.bf16)
    launch<__nv_bfloat16>(params, static_cast<cudaStream_t>(stream));
  else
    launch<float>(params, static_cast<cudaStream_t>(stream));
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess)
    throw Error(ErrorKind::kEnvironment, "rope", cudaGetErrorString(status));
}

}  // namespace espalier
