// Backends of NF4 on raw memory: torch-free. Internal.
#pragma once

#include <cstdint>

namespace espalier {

/// A quantised matrix as pointers, all on one device. `scales` float32 [blocks], or null when
/// `nested_scales` holds indices into `map`.
struct Nf4View {
  const std::uint8_t* packed = nullptr;
  const float* scales = nullptr;
  const std::uint8_t* nested_scales = nullptr;
  const float* map = nullptr;            // [256]
  const float* nested_absmax = nullptr;  // [blocks / nested_block]
  float offset = 0;
  std::int64_t block = 64, nested_block = 256;
};

enum class Nf4Output : std::uint8_t { kFloat, kBFloat16, kHalf };

/// Elements begin..end-1 of the flattened matrix, written to out[0]. 16-bit results are passed as
/// their bits.
void nf4_dequantize_cpu(const Nf4View& weight, std::int64_t begin, std::int64_t end, void* out,
                        Nf4Output type);

/// One block of `count` values: its scale, and level indices into q. Returns false for values that
/// are not finite. `whole`: the block has the full length (a short last block is divided by its
/// scale, a whole one multiplied by the reciprocal, as in bitsandbytes).
bool nf4_quantize_block_cpu(const float* x, std::int64_t count, bool whole, float* scale,
                            std::uint8_t* q);

/// One block of the second quantisation: indices into the dynamic map `map` [256].
void nf4_quantize_scales_cpu(const float* x, std::int64_t count, const float* map, float* scale,
                             std::uint8_t* q);

/// The whole matrix; `stream` is a cudaStream_t. Only in builds with ESPALIER_CUDA.
void launch_nf4_dequantize(const Nf4View& weight, std::int64_t begin, std::int64_t end, void* out,
                           Nf4Output type, void* stream);

}  // namespace espalier
