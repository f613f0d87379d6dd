// Softmax, loss and gradient of a row of logits in one kernel: one block per row, two passes over
// it, float32 arithmetic. The gradient replaces the logits. And the loss alone, its sum in float64.
#include <cuda_runtime.h>

#include "espalier/base/error.h"
#include "espalier/kernels/cuda_float.cuh"
#include "espalier/kernels/linear_cross_entropy/loss_params_internal.h"

namespace espalier {
namespace {

constexpr int kThreads = 512;

/// Running maximum and sum of e^(x - maximum).
struct Sum {
  float max, sum;
};
__device__ Sum merge(Sum a, Sum b) {
  const float max = fmaxf(a.max, b.max);
  if (max == -INFINITY) return {max, 0.0f};
  return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max)};
}

/// The block's sum in every thread, in an order that does not depend on the grid.
__device__ Sum block_merge(Sum value) {
  __shared__ Sum partial[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) {
    const Sum other{__shfl_xor_sync(0xffffffffu, value.max, offset),
                    __shfl_xor_sync(0xffffffffu, value.sum, offset)};
    value = merge(value, other);
  }
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  Sum total = partial[0];
  for (int i = 1; i < kThreads / 32; ++i) total = merge(total, partial[i]);
  return total;
}

template <class T>
__global__ void loss_kernel(T* __restrict__ logits, const long long* __restrict__ targets,
                            const float* __restrict__ scale, float* __restrict__ losses,
                            long long vocab) {
  T* row = logits + static_cast<long long>(blockIdx.x) * vocab;
  const long long target = targets[blockIdx.x];
  if (target < 0) {
    for (long long i = threadIdx.x; i < vocab; i += kThreads) row[i] = from_float<T>(0.0f);
    if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
    return;
  }
  Sum sum{-INFINITY, 0.0f};
  for (long long i = threadIdx.x; i < vocab; i += kThreads)
    sum = merge(sum, {to_float(row[i]), 1.0f});
  const Sum total = block_merge(sum);
  const float at_target = to_float(row[target]);
  __syncthreads();  // everyone has read the target before it is overwritten
  const float factor = *scale, inverse = factor / total.sum;
  for (long long i = threadIdx.x; i < vocab; i += kThreads) {
    const float g = expf(to_float(row[i]) - total.max) * inverse - (i == target ? factor : 0.0f);
    row[i] = from_float<T>(g);
  }
  if (threadIdx.x == 0) losses[blockIdx.x] = (logf(total.sum) + total.max - at_target) * factor;
}

/// The block's result of `merge`, a commutative and associative function, in every thread.
template <class T, class Merge>
__device__ T block_fold(T value, Merge merge) {
  __shared__ T partial[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2)
    value = merge(value, __shfl_xor_sync(0xffffffffu, value, offset));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  T total = partial[0];
  for (int i = 1; i < kThreads / 32; ++i) total = merge(total, partial[i]);
  return total;
}

template <class T>
__global__ void nll_kernel(const T* __restrict__ logits, const long long* __restrict__ targets,
                           float* __restrict__ nll, bool* __restrict__ best, long long vocab) {
  const T* row = logits + static_cast<long long>(blockIdx.x) * vocab;
  float own_max = -INFINITY;
  bool broken = false;  // fmaxf drops NaN
  for (long long i = threadIdx.x; i < vocab; i += kThreads) {
    const float x = to_float(row[i]);
    broken = broken || isnan(x);
    own_max = fmaxf(own_max, x);
  }
  const float max = block_fold(own_max, [](float a, float b) { return fmaxf(a, b); });
  double own_sum = broken ? static_cast<double>(NAN) : 0.0;
  for (long long i = threadIdx.x; i < vocab; i += kThreads)
    own_sum += static_cast<double>(expf(to_float(row[i]) - max));
  const double sum = block_fold(own_sum, [](double a, double b) { return a + b; });
  if (threadIdx.x != 0) return;
  const float at_target = to_float(row[targets[blockIdx.x]]);
  nll[blockIdx.x] = static_cast<float>(log(sum) + (static_cast<double>(max) - at_target));
  best[blockIdx.x] = at_target >= max;
}

void check_launch() {
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess)
    throw Error(ErrorKind::kEnvironment, "cross entropy", cudaGetErrorString(status));
}

}  // namespace

void launch_nll(const NllParams& p, void* stream) {
  if (p.rows == 0) return;
  const auto grid = static_cast<unsigned>(p.rows);
  const auto queue = static_cast<cudaStream_t>(stream);
  const auto* targets = reinterpret_cast<const long long*>(p.targets);
  if (p.bf16) {
    nll_kernel<<<grid, kThreads, 0, queue>>>(static_cast<const __nv_bfloat16*>(p.logits), targets,
                                             p.nll, p.best, p.vocab);
  } else {
    nll_kernel<<<grid, kThreads, 0, queue>>>(static_cast<const float*>(p.logits), targets, p.nll,
                                             p.best, p.vocab);
  }
  check_launch();
}

void launch_loss_and_gradient(const LossParams& p, void* stream) {
  if (p.rows == 0) return;
  const auto grid = static_cast<unsigned>(p.rows);
  const auto queue = static_cast<cudaStream_t>(stream);
  const auto* targets = reinterpret_cast<const long long*>(p.targets);
  if (p.bf16) {
    loss_kernel<<<grid, kThreads, 0, queue>>>(static_cast<__nv_bfloat16*>(p.logits), targets,
                                              p.scale, p.losses, p.vocab);
  } else {
    loss_kernel<<<grid, kThreads, 0, queue>>>(static_cast<float*>(p.logits), targets, p.scale,
                                              p.losses, p.vocab);
  }
  check_launch();
}

}  // namespace espalier
