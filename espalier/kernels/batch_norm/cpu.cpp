// batch_norm_train on the CPU: 16 channels at a time stay in registers while the rows of a chunk go
// by. Sums are taken of differences to the chunk's first row, so that a large mean costs no digits.
#include <cmath>

#include "espalier/kernels/batch_norm/kernels_internal.h"
#include "espalier/kernels/simd_internal.h"

namespace espalier {
namespace {

using simd::kLanes;

ESPALIER_INLINE float read(float x) { return x; }
ESPALIER_INLINE float read(std::uint16_t x) { return simd::from_bf16(x); }
ESPALIER_INLINE void write(float& slot, float x) { slot = x; }
ESPALIER_INLINE void write(std::uint16_t& slot, float x) { slot = simd::to_bf16(x); }

/// Calls body(first channel, lanes) for every 16 channels and once for the rest; inlined, so that
/// the 16 is a constant.
template <class Body>
ESPALIER_INLINE void over_channels(std::int64_t channels, Body body) {
  const std::int64_t whole = channels / kLanes * kLanes;
  for (std::int64_t c = 0; c < whole; c += kLanes) body(c, kLanes);
  if (whole < channels) body(whole, channels - whole);
}

template <class T>
ESPALIER_INLINE void statistics_lanes(const T* x, std::int64_t rows, std::int64_t stride,
                                      std::int64_t lanes, float* mean, float* squares) {
  float pivot[kLanes], sum[kLanes] = {}, square[kLanes] = {};
  for (std::int64_t j = 0; j < lanes; ++j) pivot[j] = read(x[j]);
  for (std::int64_t r = 0; r < rows; ++r, x += stride) {
    for (std::int64_t j = 0; j < lanes; ++j) {
      const float d = read(x[j]) - pivot[j];
      sum[j] += d;
      square[j] += d * d;
    }
  }
  for (std::int64_t j = 0; j < lanes; ++j) {
    mean[j] = pivot[j] + sum[j] / static_cast<float>(rows);
    squares[j] = square[j] - sum[j] * (sum[j] / static_cast<float>(rows));
  }
}

template <class T>
ESPALIER_INLINE void statistics_of(const BatchNormParams& p, std::int64_t chunk) {
  const std::int64_t first = chunk * p.chunk_rows, rows = std::min(p.chunk_rows, p.rows - first);
  const T* x = static_cast<const T*>(p.x) + first * p.channels;
  float* out = p.partial + chunk * 2 * p.channels;
  over_channels(
      p.channels, [&](std::int64_t c, std::int64_t lanes) __attribute__((always_inline)) {
        statistics_lanes(x + c, rows, p.channels, lanes, out + c, out + p.channels + c);
      });
}

ESPALIER_SIMD void statistics_f32(const BatchNormParams& p, std::int64_t chunk) {
  statistics_of<float>(p, chunk);
}
ESPALIER_SIMD void statistics_bf16(const BatchNormParams& p, std::int64_t chunk) {
  statistics_of<std::uint16_t>(p, chunk);
}

template <class T, bool kResidual>
ESPALIER_INLINE void apply_lanes(const BatchNormParams& p, std::int64_t first, std::int64_t last,
                                 std::int64_t c, std::int64_t lanes) {
  float mean[kLanes], scale[kLanes], bias[kLanes];
  for (std::int64_t j = 0; j < lanes; ++j) {
    mean[j] = p.mean[c + j];
    scale[j] = p.weight[c + j] * p.invstd[c + j];
    bias[j] = p.bias[c + j];
  }
  const float lowest = p.relu ? 0.0f : -HUGE_VALF;
  const T* x = static_cast<const T*>(p.x) + c;
  const T* residual = kResidual ? static_cast<const T*>(p.residual) + c : nullptr;
  T* y = static_cast<T*>(p.y) + c;
  for (std::int64_t at = first * p.channels; at < last * p.channels; at += p.channels) {
    for (std::int64_t j = 0; j < lanes; ++j) {
      float v = (read(x[at + j]) - mean[j]) * scale[j] + bias[j];
      if constexpr (kResidual) v += read(residual[at + j]);
      write(y[at + j], v < lowest ? lowest : v);  // NaN stays
    }
  }
}

template <class T>
ESPALIER_INLINE void apply_of(const BatchNormParams& p, std::int64_t first, std::int64_t last) {
  over_channels(
      p.channels, [&](std::int64_t c, std::int64_t lanes) __attribute__((always_inline)) {
        if (p.residual != nullptr)
          apply_lanes<T, true>(p, first, last, c, lanes);
        else
          apply_lanes<T, false>(p, first, last, c, lanes);
      });
}

ESPALIER_SIMD void apply_f32(const BatchNormParams& p, std::int64_t first, std::int64_t last) {
  apply_of<float>(p, first, last);
}
ESPALIER_SIMD void apply_bf16(const BatchNormParams& p, std::int64_t first, std::int64_t last) {
  apply_of<std::uint16_t>(p, first, last);
}

/// Where the ReLU's mask comes from.
enum class Mask : std::uint8_t { kNone, kFromX, kFromY };

/// What the backward needs of 16 channels.
struct Channels {
  float mean[kLanes], scale[kLanes], bias[kLanes];

  ESPALIER_INLINE Channels(const BatchNormBackwardParams& p, std::int64_t c, std::int64_t lanes) {
    for (std::int64_t j = 0; j < lanes; ++j) {
      mean[j] = p.mean[c + j];
      scale[j] = p.weight[c + j] * p.invstd[c + j];
      bias[j] = p.bias[c + j];
    }
  }
  /// The gradient behind the ReLU; `d` = x - mean.
  template <Mask kMask>
  ESPALIER_INLINE float masked(float g, float d, float y, std::int64_t j) const {
    if constexpr (kMask == Mask::kFromX) return d * scale[j] + bias[j] > 0 ? g : 0.0f;
    if constexpr (kMask == Mask::kFromY) return y > 0 ? g : 0.0f;
    return g;
  }
};

template <class T, Mask kMask>
ESPALIER_INLINE void sums_lanes(const BatchNormBackwardParams& p, std::int64_t chunk,
                                std::int64_t c, std::int64_t lanes) {
  const Channels channels(p, c, lanes);
  const T* x = static_cast<const T*>(p.x) + c;
  const T* y = kMask == Mask::kFromY ? static_cast<const T*>(p.y) + c : nullptr;
  const T* g = static_cast<const T*>(p.g) + c;
  float sum[kLanes] = {}, product[kLanes] = {};
  const std::int64_t end = std::min(p.rows, (chunk + 1) * p.chunk_rows) * p.channels;
  for (std::int64_t at = chunk * p.chunk_rows * p.channels; at < end; at += p.channels) {
    for (std::int64_t j = 0; j < lanes; ++j) {
      const float d = read(x[at + j]) - channels.mean[j];
      const float v = channels.masked<kMask>(read(g[at + j]), d,
                                             kMask == Mask::kFromY ? read(y[at + j]) : 0.0f, j);
      sum[j] += v;
      product[j] += v * d;
    }
  }
  float* out = p.partial + chunk * 2 * p.channels + c;
  for (std::int64_t j = 0; j < lanes; ++j) {
    out[j] = sum[j];
    out[p.channels + j] = product[j];
  }
}

template <class T, Mask kMask>
ESPALIER_INLINE void backward_lanes(const BatchNormBackwardParams& p, std::int64_t first,
                                    std::int64_t last, std::int64_t c, std::int64_t lanes) {
  const Channels channels(p, c, lanes);
  float shift[kLanes], pull[kLanes];
  const float share = 1.0f / static_cast<float>(p.rows);
  for (std::int64_t j = 0; j < lanes; ++j) {
    shift[j] = p.dbias[c + j] * share;
    pull[j] = p.dweight[c + j] * p.invstd[c + j] * share;
  }
  const T* x = static_cast<const T*>(p.x) + c;
  const T* y = kMask == Mask::kFromY ? static_cast<const T*>(p.y) + c : nullptr;
  const T* g = static_cast<const T*>(p.g) + c;
  T* dx = static_cast<T*>(p.dx) + c;
  T* dresidual = p.dresidual != nullptr ? static_cast<T*>(p.dresidual) + c : nullptr;
  for (std::int64_t at = first * p.channels; at < last * p.channels; at += p.channels) {
    float v[kLanes];
    for (std::int64_t j = 0; j < lanes; ++j) {
      const float d = read(x[at + j]) - channels.mean[j];
      v[j] = channels.masked<kMask>(read(g[at + j]), d,
                                    kMask == Mask::kFromY ? read(y[at + j]) : 0.0f, j);
      write(dx[at + j], channels.scale[j] * (v[j] - shift[j] - d * pull[j]));
    }
    if (dresidual == nullptr) continue;
    for (std::int64_t j = 0; j < lanes; ++j) write(dresidual[at + j], v[j]);
  }
}

/// Calls body.run<mask>(first channel, lanes) with the mask these parameters ask for.
template <class Body>
ESPALIER_INLINE void with_mask(const BatchNormBackwardParams& p, Body body) {
  over_channels(
      p.channels, [&](std::int64_t c, std::int64_t lanes) __attribute__((always_inline)) {
        if (!p.relu)
          body.template run<Mask::kNone>(c, lanes);
        else if (p.y == nullptr)
          body.template run<Mask::kFromX>(c, lanes);
        else
          body.template run<Mask::kFromY>(c, lanes);
      });
}

template <class T>
struct SumsBody {
  const BatchNormBackwardParams& p;
  std::int64_t chunk;
  template <Mask kMask>
  ESPALIER_INLINE void run(std::int64_t c, std::int64_t lanes) const {
    sums_lanes<T, kMask>(p, chunk, c, lanes);
  }
};

template <class T>
struct BackwardBody {
  const BatchNormBackwardParams& p;
  std::int64_t first, last;
  template <Mask kMask>
  ESPALIER_INLINE void run(std::int64_t c, std::int64_t lanes) const {
    backward_lanes<T, kMask>(p, first, last, c, lanes);
  }
};

ESPALIER_SIMD void sums_f32(const BatchNormBackwardParams& p, std::int64_t chunk) {
  with_mask(p, SumsBody<float>{p, chunk});
}
ESPALIER_SIMD void sums_bf16(const BatchNormBackwardParams& p, std::int64_t chunk) {
  with_mask(p, SumsBody<std::uint16_t>{p, chunk});
}
ESPALIER_SIMD void backward_f32(const BatchNormBackwardParams& p, std::int64_t first,
                                std::int64_t last) {
  with_mask(p, BackwardBody<float>{p, first, last});
}
ESPALIER_SIMD void backward_bf16(const BatchNormBackwardParams& p, std::int64_t first,
                                 std::int64_t last) {
  with_mask(p, BackwardBody<std::uint16_t>{p, first, last});
}

/// Rows whose three or five tensors stay in a core's cache while the channels are walked.
constexpr std::int64_t kTile = 128;

template <class Params, class Fn>
void in_tiles(const Params& p, std::int64_t first, std::int64_t last, Fn fn) {
  for (; first < last; first += kTile) fn(p, first, std::min(last, first + kTile));
}

}  // namespace

void batch_norm_statistics_cpu(const BatchNormParams& p, std::int64_t first_chunk,
                               std::int64_t last_chunk) {
  for (std::int64_t chunk = first_chunk; chunk < last_chunk; ++chunk)
    p.bf16 ? statistics_bf16(p, chunk) : statistics_f32(p, chunk);
}

void batch_norm_finish_cpu(const BatchNormParams& p) {
  const std::int64_t chunks = batch_norm_chunks(p.rows, p.chunk_rows);
  const auto rows_of = [&](std::int64_t chunk) {
    return static_cast<double>(std::min(p.chunk_rows, p.rows - chunk * p.chunk_rows));
  };
  const auto rows = static_cast<double>(p.rows);
  for (std::int64_t c = 0; c < p.channels; ++c) {
    double mean = 0, squares = 0;
    for (std::int64_t k = 0; k < chunks; ++k)
      mean += rows_of(k) * static_cast<double>(p.partial[k * 2 * p.channels + c]);
    mean /= rows;
    for (std::int64_t k = 0; k < chunks; ++k) {
      const float* chunk = p.partial + k * 2 * p.channels + c;
      const double off = static_cast<double>(chunk[0]) - mean;
      squares += static_cast<double>(chunk[p.channels]) + rows_of(k) * off * off;
    }
    p.mean[c] = static_cast<float>(mean);
    p.invstd[c] = static_cast<float>(1 / std::sqrt(squares / rows + static_cast<double>(p.eps)));
    if (p.running_mean == nullptr) continue;
    p.running_mean[c] += p.momentum * (p.mean[c] - p.running_mean[c]);
    p.running_var[c] += p.momentum * (static_cast<float>(squares / (rows - 1)) - p.running_var[c]);
  }
  if (p.counter != nullptr) ++*p.counter;
}

void batch_norm_apply_cpu(const BatchNormParams& p, std::int64_t first_row, std::int64_t last_row) {
  in_tiles(p, first_row, last_row, p.bf16 ? apply_bf16 : apply_f32);
}

void batch_norm_backward_sums_cpu(const BatchNormBackwardParams& p, std::int64_t first_chunk,
                                  std::int64_t last_chunk) {
  for (std::int64_t chunk = first_chunk; chunk < last_chunk; ++chunk)
    p.bf16 ? sums_bf16(p, chunk) : sums_f32(p, chunk);
}

void batch_norm_backward_finish_cpu(const BatchNormBackwardParams& p) {
  const std::int64_t chunks = batch_norm_chunks(p.rows, p.chunk_rows);
  for (std::int64_t c = 0; c < p.channels; ++c) {
    double sum = 0, product = 0;
    for (std::int64_t k = 0; k < chunks; ++k) {
      sum += static_cast<double>(p.partial[k * 2 * p.channels + c]);
      product += static_cast<double>(p.partial[(k * 2 + 1) * p.channels + c]);
    }
    p.dbias[c] = static_cast<float>(sum);
    p.dweight[c] = static_cast<float>(product * static_cast<double>(p.invstd[c]));
  }
}

void batch_norm_backward_apply_cpu(const BatchNormBackwardParams& p, std::int64_t first_row,
                                   std::int64_t last_row) {
  in_tiles(p, first_row, last_row, p.bf16 ? backward_bf16 : backward_f32);
}

}  // namespace espalier
