// batch_norm_train on CUDA, channels-last. A thread keeps V channels (16 bytes of a row) and walks
// rows, so that neighbouring threads read neighbouring bytes and per-channel values stay in
// registers. Three launches forward (sums of chunks, their join, the result) and three backward.
// Sums are joined in a fixed order: no atomics, the same bits every time. Torch-free.
//
// Roofline: 2 reads of x, one of the residual, one write forward; backward x, g, y twice, two
// writes. ResNet-56's tensors (8 MB at batch 256) mostly lie in the 50 MB of L2.
#include <cstdint>

#include <cuda_runtime.h>

#include "espalier/base/error.h"
#include "espalier/kernels/batch_norm/kernels_internal.h"
#include "espalier/kernels/cuda_float.cuh"

namespace espalier {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxLanes = 32;  // threads along the channels of a row

/// V neighbouring values of a row as one memory access.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T values[V];
};

template <class T, int V>
__device__ inline void load(const T* from, float (&to)[V]) {
  const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(from);
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = to_float(pack.values[i]);
}

template <class T, int V>
__device__ inline void store(T* to, const float (&from)[V]) {
  Pack<T, V> pack;
#pragma unroll
  for (int i = 0; i < V; ++i) pack.values[i] = from_float<T>(from[i]);
  *reinterpret_cast<Pack<T, V>*>(to) = pack;
}

template <int V>
__device__ inline void load_channels(const float* from, int channel, float (&to)[V]) {
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = from[channel + i];
}

/// Which rows and channels of a chunk a thread walks.
template <int V>
struct Place {
  int lanes, slot, slots, channel;
  bool active;
  long long first, end;  // rows of the chunk

  __device__ Place(int lanes_per_row, int channels, long long rows, long long chunk_rows)
      : lanes(lanes_per_row),
        slot(static_cast<int>(threadIdx.x) / lanes_per_row),
        slots(kThreads / lanes_per_row),
        channel((static_cast<int>(blockIdx.y) * lanes_per_row +
                 static_cast<int>(threadIdx.x) % lanes_per_row) *
                V),
        active(slot < slots && channel < channels),
        first(static_cast<long long>(blockIdx.x) * chunk_rows),
        end(first + chunk_rows < rows ? first + chunk_rows : rows) {}
};

/// Adds a and b of the threads of one lane; the totals are in slot 0.
template <int V>
__device__ inline void add_slots(const Place<V>& place, float (&a)[V], float (&b)[V]) {
  __shared__ float shared_a[V][kThreads], shared_b[V][kThreads];
#pragma unroll
  for (int i = 0; i < V; ++i) {
    shared_a[i][threadIdx.x] = a[i];
    shared_b[i][threadIdx.x] = b[i];
  }
  __syncthreads();
  int width = 1;
  while (width * 2 < place.slots) width *= 2;
  for (; width > 0; width /= 2) {
    // The first round may find fewer than twice `width` slots; later ones never do.
    if (place.slot < width && place.slot + width < place.slots) {
      const int other = static_cast<int>(threadIdx.x) + width * place.lanes;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        shared_a[i][threadIdx.x] += shared_a[i][other];
        shared_b[i][threadIdx.x] += shared_b[i][other];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < V; ++i) {
    a[i] = shared_a[i][threadIdx.x];
    b[i] = shared_b[i][threadIdx.x];
  }
}

template <class T, int V>
__global__ void statistics_kernel(BatchNormParams p, int lanes) {
  const Place<V> place(lanes, static_cast<int>(p.channels), p.rows, p.chunk_rows);
  const T* x = static_cast<const T*>(p.x);
  float pivot[V] = {}, sum[V] = {}, square[V] = {};
  if (place.active) {
    // Differences to the chunk's first row: a large mean costs no digits.
    load<T, V>(x + place.first * p.channels + place.channel, pivot);
#pragma unroll 4
    for (long long row = place.first + place.slot; row < place.end; row += place.slots) {
      float v[V];
      load<T, V>(x + row * p.channels + place.channel, v);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float d = v[i] - pivot[i];
        sum[i] += d;
        square[i] = fmaf(d, d, square[i]);
      }
    }
  }
  add_slots<V>(place, sum, square);
  if (place.slot != 0 || !place.active) return;
  const float rows = static_cast<float>(place.end - place.first);
  float* out = p.partial + static_cast<long long>(blockIdx.x) * 2 * p.channels + place.channel;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    out[i] = pivot[i] + sum[i] / rows;
    out[p.channels + i] = square[i] - sum[i] * (sum[i] / rows);
  }
}

constexpr int kFinishChannels = 32, kFinishSlices = 16;

/// The sum over the slices of a channel, in every thread of it, always in the same order.
__device__ inline double add_slices(double value, double (*shared)[kFinishChannels]) {
  const int lane = static_cast<int>(threadIdx.x) % kFinishChannels;
  __syncthreads();
  shared[threadIdx.x / kFinishChannels][lane] = value;
  __syncthreads();
  double total = 0;
#pragma unroll
  for (int i = 0; i < kFinishSlices; ++i) total += shared[i][lane];
  return total;
}

__global__ void finish_kernel(BatchNormParams p, int chunks) {
  __shared__ double shared[kFinishSlices][kFinishChannels];
  const int slice = static_cast<int>(threadIdx.x) / kFinishChannels;
  const long long channel = static_cast<long long>(blockIdx.x) * kFinishChannels +
                            static_cast<int>(threadIdx.x) % kFinishChannels;
  const bool active = channel < p.channels;
  const auto rows_of = [&](int chunk) {
    const long long left = p.rows - chunk * p.chunk_rows;
    return static_cast<double>(left < p.chunk_rows ? left : p.chunk_rows);
  };
  const auto rows = static_cast<double>(p.rows);
  double sum = 0;
  if (active) {
#pragma unroll 4
    for (int k = slice; k < chunks; k += kFinishSlices)
      sum += rows_of(k) * static_cast<double>(p.partial[k * 2ll * p.channels + channel]);
  }
  const double mean = add_slices(sum, shared) / rows;
  double squares = 0;
  if (active) {
#pragma unroll 4
    for (int k = slice; k < chunks; k += kFinishSlices) {
      const float* chunk = p.partial + k * 2ll * p.channels + channel;
      const double off = static_cast<double>(chunk[0]) - mean;
      squares += static_cast<double>(chunk[p.channels]) + rows_of(k) * off * off;
    }
  }
  squares = add_slices(squares, shared);
  if (!active || slice != 0) return;
  const float batch_mean = static_cast<float>(mean);
  p.mean[channel] = batch_mean;
  p.invstd[channel] = static_cast<float>(1 / sqrt(squares / rows + static_cast<double>(p.eps)));
  if (p.running_mean != nullptr) {
    const float variance = static_cast<float>(squares / (rows - 1));
    p.running_mean[channel] += p.momentum * (batch_mean - p.running_mean[channel]);
    p.running_var[channel] += p.momentum * (variance - p.running_var[channel]);
  }
  if (p.counter != nullptr && channel == 0) *p.counter += 1;
}

template <class T, int V>
__global__ void apply_kernel(BatchNormParams p, int lanes, long long chunk_rows) {
  const Place<V> place(lanes, static_cast<int>(p.channels), p.rows, chunk_rows);
  if (!place.active) return;
  float mean[V], scale[V], invstd[V], bias[V];
  load_channels<V>(p.mean, place.channel, mean);
  load_channels<V>(p.weight, place.channel, scale);
  load_channels<V>(p.invstd, place.channel, invstd);
  load_channels<V>(p.bias, place.channel, bias);
#pragma unroll
  for (int i = 0; i < V; ++i) scale[i] *= invstd[i];
  const T* x = static_cast<const T*>(p.x);
  const T* residual = static_cast<const T*>(p.residual);
  T* y = static_cast<T*>(p.y);
#pragma unroll 2
  for (long long row = place.first + place.slot; row < place.end; row += place.slots) {
    const long long at = row * p.channels + place.channel;
    float v[V], r[V] = {};
    load<T, V>(x + at, v);
    if (residual != nullptr) load<T, V>(residual + at, r);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      v[i] = fmaf(v[i] - mean[i], scale[i], bias[i]) + r[i];
      if (p.relu && v[i] < 0) v[i] = 0;  // NaN stays
    }
    store<T, V>(y + at, v);
  }
}

/// Per-channel values of the backward and the gradient behind the ReLU.
template <class T, int V>
struct Channels {
  float mean[V], scale[V], bias[V];

  __device__ Channels(const BatchNormBackwardParams& p, int channel) {
    float invstd[V];
    load_channels<V>(p.mean, channel, mean);
    load_channels<V>(p.weight, channel, scale);
    load_channels<V>(p.invstd, channel, invstd);
    load_channels<V>(p.bias, channel, bias);
#pragma unroll
    for (int i = 0; i < V; ++i) scale[i] *= invstd[i];
  }

  /// d = x - mean and g = the gradient that passes, at an offset.
  __device__ void read(const BatchNormBackwardParams& p, long long at, float (&d)[V],
                       float (&g)[V]) const {
    load<T, V>(static_cast<const T*>(p.x) + at, d);
    load<T, V>(static_cast<const T*>(p.g) + at, g);
#pragma unroll
    for (int i = 0; i < V; ++i) d[i] -= mean[i];
    if (!p.relu) return;
    float y[V];
    if (p.y != nullptr) {
      load<T, V>(static_cast<const T*>(p.y) + at, y);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) y[i] = fmaf(d[i], scale[i], bias[i]);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) g[i] = y[i] > 0 ? g[i] : 0.0f;
  }
};

template <class T, int V>
__global__ void backward_sums_kernel(BatchNormBackwardParams p, int lanes) {
  const Place<V> place(lanes, static_cast<int>(p.channels), p.rows, p.chunk_rows);
  float sum[V] = {}, product[V] = {};
  if (place.active) {
    const Channels<T, V> channels(p, place.channel);
#pragma unroll 2
    for (long long row = place.first + place.slot; row < place.end; row += place.slots) {
      float d[V], g[V];
      channels.read(p, row * p.channels + place.channel, d, g);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        sum[i] += g[i];
        product[i] = fmaf(g[i], d[i], product[i]);
      }
    }
  }
  add_slots<V>(place, sum, product);
  if (place.slot != 0 || !place.active) return;
  float* out = p.partial + static_cast<long long>(blockIdx.x) * 2 * p.channels + place.channel;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    out[i] = sum[i];
    out[p.channels + i] = product[i];
  }
}

__global__ void backward_finish_kernel(BatchNormBackwardParams p, int chunks) {
  __shared__ double shared[kFinishSlices][kFinishChannels];
  const int slice = static_cast<int>(threadIdx.x) / kFinishChannels;
  const long long channel = static_cast<long long>(blockIdx.x) * kFinishChannels +
                            static_cast<int>(threadIdx.x) % kFinishChannels;
  const bool active = channel < p.channels;
  double sum = 0, product = 0;
  if (active) {
#pragma unroll 4
    for (int k = slice; k < chunks; k += kFinishSlices) {
      const float* chunk = p.partial + k * 2ll * p.channels + channel;
      sum += static_cast<double>(chunk[0]);
      product += static_cast<double>(chunk[p.channels]);
    }
  }
  sum = add_slices(sum, shared);
  product = add_slices(product, shared);
  if (!active || slice != 0) return;
  p.dbias[channel] = static_cast<float>(sum);
  p.dweight[channel] = static_cast<float>(product * static_cast<double>(p.invstd[channel]));
}

template <class T, int V>
__global__ void backward_apply_kernel(BatchNormBackwardParams p, int lanes, long long chunk_rows) {
  const Place<V> place(lanes, static_cast<int>(p.channels), p.rows, chunk_rows);
  if (!place.active) return;
  const Channels<T, V> channels(p, place.channel);
  float shift[V], pull[V], invstd[V];
  load_channels<V>(p.dbias, place.channel, shift);
  load_channels<V>(p.dweight, place.channel, pull);
  load_channels<V>(p.invstd, place.channel, invstd);
  const float share = 1.0f / static_cast<float>(p.rows);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    shift[i] *= share;
    pull[i] *= invstd[i] * share;
  }
#pragma unroll 2
  for (long long row = place.first + place.slot; row < place.end; row += place.slots) {
    const long long at = row * p.channels + place.channel;
    float d[V], g[V], dx[V];
    channels.read(p, at, d, g);
#pragma unroll
    for (int i = 0; i < V; ++i) dx[i] = channels.scale[i] * (g[i] - shift[i] - d[i] * pull[i]);
    store<T, V>(static_cast<T*>(p.dx) + at, dx);
    if (p.dresidual != nullptr) store<T, V>(static_cast<T*>(p.dresidual) + at, g);
  }
}

void check_launch() {
  if (const cudaError_t status = cudaGetLastError(); status != cudaSuccess)
    throw Error(ErrorKind::kEnvironment, "batch_norm_train", cudaGetErrorString(status));
}

unsigned blocks_of(long long count, long long each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

/// Rows of a block of an element-wise pass: a few per thread, so that per-channel values pay.
constexpr int kRowsPerThread = 4;

template <class T, int V>
void launch_forward(const BatchNormParams& p, cudaStream_t stream) {
  const int groups = static_cast<int>(p.channels / V);
  const int lanes = groups < kMaxLanes ? groups : kMaxLanes;
  const unsigned columns = blocks_of(groups, lanes);
  const unsigned chunks = blocks_of(p.rows, p.chunk_rows);
  statistics_kernel<T, V><<<dim3(chunks, columns), kThreads, 0, stream>>>(p, lanes);
  check_launch();
  finish_kernel<<<blocks_of(p.channels, kFinishChannels), kFinishChannels * kFinishSlices, 0,
                  stream>>>(p, static_cast<int>(chunks));
  check_launch();
  const long long rows = static_cast<long long>(kThreads / lanes) * kRowsPerThread;
  apply_kernel<T, V>
      <<<dim3(blocks_of(p.rows, rows), columns), kThreads, 0, stream>>>(p, lanes, rows);
  check_launch();
}

template <class T, int V>
void launch_backward(const BatchNormBackwardParams& p, cudaStream_t stream) {
  const int groups = static_cast<int>(p.channels / V);
  const int lanes = groups < kMaxLanes ? groups : kMaxLanes;
  const unsigned columns = blocks_of(groups, lanes);
  const unsigned chunks = blocks_of(p.rows, p.chunk_rows);
  backward_sums_kernel<T, V><<<dim3(chunks, columns), kThreads, 0, stream>>>(p, lanes);
  check_launch();
  backward_finish_kernel<<<blocks_of(p.channels, kFinishChannels), kFinishChannels * kFinishSlices,
                           0, stream>>>(p, static_cast<int>(chunks));
  check_launch();
  const long long rows = static_cast<long long>(kThreads / lanes) * kRowsPerThread;
  backward_apply_kernel<T, V>
      <<<dim3(blocks_of(p.rows, rows), columns), kThreads, 0, stream>>>(p, lanes, rows);
  check_launch();
}

/// Whether rows of these tensors can be read 16 bytes at a time. Null counts as aligned.
template <class... Pointers>
bool is_aligned(std::int64_t channels, bool bf16, Pointers... pointers) {
  return channels % (bf16 ? 8 : 4) == 0 &&
         ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace

void launch_batch_norm(const BatchNormParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  const bool wide = is_aligned(p.channels, p.bf16, p.x, p.residual, p.y);
  if (p.bf16)
    wide ? launch_forward<__nv_bfloat16, 8>(p, s) : launch_forward<__nv_bfloat16, 1>(p, s);
  else
    wide ? launch_forward<float, 4>(p, s) : launch_forward<float, 1>(p, s);
}

void launch_batch_norm_backward(const BatchNormBackwardParams& p, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  const bool wide = is_aligned(p.channels, p.bf16, p.x, p.y, p.g, p.dx, p.dresidual);
  if (p.bf16)
    wide ? launch_backward<__nv_bfloat16, 8>(p, s) : launch_backward<__nv_bfloat16, 1>(p, s);
  else
    wide ? launch_backward<float, 4>(p, s) : launch_backward<float, 1>(p, s);
}

}  // namespace espalier
