// See scan_values.h. Chunks are dequantised into a buffer that stays in cache; classifying is on
// bit patterns.
#include "apps/cli/scan_values.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"

namespace espalier::cli {
namespace {

constexpr std::int64_t kChunk = 1 << 15;  // elements; a multiple of every block

struct Counts {
  std::int64_t nan = 0, inf = 0, nonzero = 0;
};

Counts count_floats(std::span<const float> values) {
  Counts counts;
  for (const float value : values) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    bits &= 0x7fffffffu;
    counts.nan += bits > 0x7f800000u;
    counts.inf += bits == 0x7f800000u;
    counts.nonzero += bits != 0;
  }
  return counts;
}

Counts count_doubles(std::span<const std::byte> data) {
  Counts counts;
  for (std::size_t at = 0; at + 8 <= data.size(); at += 8) {
    std::uint64_t bits;
    std::memcpy(&bits, data.data() + at, sizeof(bits));
    bits &= 0x7fffffffffffffffull;
    counts.nan += bits > 0x7ff0000000000000ull;
    counts.inf += bits == 0x7ff0000000000000ull;
    counts.nonzero += bits != 0;
  }
  return counts;
}

/// E4M3 has no infinity and one NaN per sign; E5M2 is a short float16.
Counts count_float8(std::span<const std::byte> data, bool e5m2) {
  Counts counts;
  for (const std::byte byte : data) {
    const auto bits = std::to_integer<unsigned>(byte) & 0x7fu;
    counts.nan += e5m2 ? bits > 0x7cu : bits == 0x7fu;
    counts.inf += e5m2 && bits == 0x7cu;
    counts.nonzero += bits != 0;
  }
  return counts;
}

Counts count_integers(std::span<const std::byte> data) {
  Counts counts;
  for (const std::byte byte : data) counts.nonzero += byte != std::byte{0};
  return counts;
}

/// The GGUF type with the layout of a safetensors dtype, for the types that have one.
GgufType float_type(const ScanItem& item) {
  if (item.is_gguf) return item.type;
  return item.dtype == Dtype::kF16    ? GgufType::kF16
         : item.dtype == Dtype::kBF16 ? GgufType::kBF16
                                      : GgufType::kF32;
}

Counts count_chunk(const ScanItem& item, std::span<const std::byte> data, std::int64_t elements) {
  if (!item.is_gguf) {
    switch (item.dtype) {
      case Dtype::kF64:
        return count_doubles(data);
      case Dtype::kF8E4M3:
        return count_float8(data, false);
      case Dtype::kF8E5M2:
        return count_float8(data, true);
      case Dtype::kF32:
      case Dtype::kF16:
      case Dtype::kBF16:
        break;
      default:
        return count_integers(data);
    }
  }
  std::vector<float> values(static_cast<std::size_t>(elements));
  dequantize(float_type(item), data, values);
  return count_floats(values);
}

/// Bytes of `elements` elements from the start of the tensor.
std::size_t bytes_of(const ScanItem& item, std::int64_t elements) {
  return static_cast<std::size_t>(item.is_gguf ? gguf_bytes(item.type, elements)
                                               : elements * dtype_size(item.dtype));
}

Counts scan_tensor(const ScanItem& item) {
  std::atomic<std::int64_t> nan{0}, inf{0}, nonzero{0};
  const std::int64_t chunks = (item.elements + kChunk - 1) / kChunk;
  at::parallel_for(0, chunks, 4, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t chunk = first; chunk < last; ++chunk) {
      const std::int64_t begin = chunk * kChunk, count = std::min(kChunk, item.elements - begin);
      const Counts counts =
          count_chunk(item, item.data.subspan(bytes_of(item, begin), bytes_of(item, count)), count);
      nan += counts.nan;
      inf += counts.inf;
      nonzero += counts.nonzero;
    }
  });
  return {nan, inf, nonzero};
}

}  // namespace

std::vector<ScanFinding> scan_values(const std::vector<ScanItem>& items, Reporter& reporter,
                                     const StopToken& stop) {
  std::int64_t total = 0, done = 0;
  for (const ScanItem& item : items) total += static_cast<std::int64_t>(item.data.size());
  const auto phase = reporter.phase("reading weights", total, "bytes");
  std::vector<ScanFinding> findings;
  for (const ScanItem& item : items) {
    if (stop.stop_requested()) throw Interrupted{};
    const Counts counts = scan_tensor(item);
    if (item.file) item.file->release(item.data);
    // A tensor of zeros is legal (a bias nobody trained), but in a matrix it is how a failed write
    // looks.
    if (counts.nan > 0 || counts.inf > 0 || (counts.nonzero == 0 && item.elements > 0)) {
      findings.push_back({item.name, counts.nan, counts.inf, counts.nonzero == 0});
    }
    done += static_cast<std::int64_t>(item.data.size());
    phase->update(done);
  }
  return findings;
}

}  // namespace espalier::cli
