// rms_norm on CUDA: one block per row, the row kept in registers or re-read from L1, fp32
// accumulation, one warp-shuffle reduction. Torch-free, so it compiles in a second.
// Bandwidth-bound: 2 passes over the row, the second from cache.
#include <cuda_runtime.h>

#include "espalier/base/error.h"
#include "espalier/kernels/cuda_float.cuh"
#include "espalier/kernels/rms_norm/kernels_internal.h"

namespace espalier {
namespace {

constexpr int kThreads = 256;

/// The sum over the block, in every thread; the same order of additions whatever the grid.
__device__ float block_sum(float value, float* partial) {
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
  __shared__ float partial[kThreads / 32];
  float sum = 0;
  for (long long i = threadIdx.x; i < width; i += kThreads) {
    const float v = to_float(row[i]);
    sum += v * v;
  }
  const float scale = rsqrtf(block_sum(sum, partial) / static_cast<float>(width) + eps);
  for (long long i = threadIdx.x; i < width; i += kThreads) {
    const float normed = to_float(from_float<T>(to_float(row[i]) * scale));
    out[i] = from_float<T>(to_float(weight[i]) * normed);
  }
}

template <class T>
__global__ void backward_kernel(const T* __restrict__ x, const T* __restrict__ weight,
                                const T* __restrict__ g, T* __restrict__ dx,
                                float* __restrict__ scales, long long width, float eps) {
  const long long at = static_cast<long long>(blockIdx.x) * width;
  __shared__ float squares_partial[kThreads / 32], products_partial[kThreads / 32];
  float squares = 0, products = 0;
  for (long long i = threadIdx.x; i < width; i += kThreads) {
    const float v = to_float(x[at + i]);
    squares += v * v;
    products += to_float(g[at + i]) * to_float(weight[i]) * v;
  }
  const float scale = rsqrtf(block_sum(squares, squares_partial) / static_cast<float>(width) + eps);
  const float pull =
      block_sum(products, products_partial) * scale * scale * scale / static_cast<float>(width);
  for (long long i = threadIdx.x; i < width; i += kThreads) {
    dx[at + i] = from_float<T>(to_float(g[at + i]) * to_float(weight[i]) * scale -
                               to_float(x[at + i]) * pull);
  }
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
}

/// One block per chunk of rows and kThreads columns.
template <class T>
__global__ void weight_gradient_kernel(const T* __restrict__ x, const T* __restrict__ g,
                                       const float* __restrict__ scales,
                                       float* __restrict__ partial, long long rows,
                                       long long width) {
  const long long column = static_cast<long long>(blockIdx.y) * kThreads + threadIdx.x;
  if (column >= width) return;
  const long long first = static_cast<long long>(blockIdx.x) * kWeightGradientRows;
  const long long end = first + kWeightGradientRows < rows ? first + kWeightGradientRows : rows;
  float sum = 0;
  for (long long row = first; row < end; ++row)
    sum += to_float(g[row * width + column]) * (to_float(x[row * width + column]) * scales[row]);
  partial[static_cast<long long>(blockIdx.x) * width + column] = sum;
}

template <class T>
void launch_backward(const RmsNormBackwardParams& p, cudaStream_t stream) {
  backward_kernel<T><<<static_cast<unsigned>(p.rows), kThreads, 0, stream>>>(
      static_cast<const T*>(p.x), static_cast<const T*>(p.weight), static_cast<const T*>(p.g),
      static_cast<T*>(p.dx), p.scale, p.width, p.eps);
}

template <class T>
void launch_weight_gradient(const RmsNormBackwardParams& p, float* partial, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((p.rows + kWeightGradientRows - 1) / kWeightGradientRows),
                  static_cast<unsigned>((p.width + kThreads - 1) / kThreads));
  weight_gradient_kernel<T><<<grid, kThreads, 0, stream>>>(
      static_cast<const T*>(p.x), static_cast<const T*>(p.g), p.scale, partial, p.rows, p.width);
}

void check_launch() {
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess)
    throw Error(ErrorKind::kEnvironment, "rms_norm", cudaGetErrorString(status));
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
  check_launch();
}

void launch_rms_norm_backward(const RmsNormBackwardParams& params, void* stream) {
  if (params.bf16)
    launch_backward<__nv_bfloat16>(params, static_cast<cudaStream_t>(stream));
  else
    launch_backward<float>(params, static_cast<cudaStream_t>(stream));
  check_launch();
}

void launch_rms_norm_weight_gradient(const RmsNormBackwardParams& params, float* partial,
                                     void* stream) {
  if (params.bf16)
    launch_weight_gradient<__nv_bfloat16>(params, partial, static_cast<cudaStream_t>(stream));
  else
    launch_weight_gradient<float>(params, partial, static_cast<cudaStream_t>(stream));
  check_launch();
}

}  // namespace espalier
