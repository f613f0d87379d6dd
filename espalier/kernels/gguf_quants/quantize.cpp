// Quantisers whose rounding is published exactly. Each step is a separate float32 operation in the
// published order; compiled without contraction, so that a fused multiply-add never changes a bit.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/gguf_quants/gguf_quants.h"
#include "espalier/kernels/gguf_quants/half_internal.h"
#include "espalier/kernels/gguf_quants/simd_internal.h"

namespace espalier {
namespace {

constexpr std::size_t kBlock = 32;
constexpr float kMaxHalf = 65504.0f;

void put_half(std::byte* out, float value) {
  const std::uint16_t bits = float_to_half(value);
  std::memcpy(out, &bits, sizeof(bits));
}

/// Truncates to a byte as the published code does: a value outside int32 (1/d may be infinite for
/// denormal d) is 0.
std::uint8_t to_byte(float value) {
  if (!(value > -2147483648.0f && value < 2147483648.0f)) return 0;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(value));
}

std::uint8_t to_nibble(float value) {
  return std::min<std::uint8_t>(to_byte(std::trunc(value)), 15);
}

float inverse(float d) { return d == 0 ? 0.0f : 1.0f / d; }

/// A block with NaN, Inf or a scale beyond float16 has no meaning in these formats.
void check_block(GgufType type, const float* x, float scale, std::size_t offset) {
  for (std::size_t i = 0; i < kBlock; ++i) {
    if (std::isfinite(x[i])) continue;
    throw Error(ErrorKind::kInput, gguf_type_info(type).name,
                format("element {} is {}, which cannot be quantised", offset + i, x[i]))
        .hint("run `espalier verify MODEL --deep` to list the tensors with NaN or Inf");
  }
  if (std::abs(scale) <= kMaxHalf) return;
  throw Error(ErrorKind::kInput, gguf_type_info(type).name,
              format("elements {} to {} need a scale of {}, but float16 ends at {}", offset,
                     offset + kBlock - 1, scale, kMaxHalf))
      .hint("write this tensor as f32 or bf16");
}

/// Half away from zero, computed as the published code does: adding 0.5 first would round
/// 0.49999997 up.
float round_away(float value) {
  const float magnitude = std::abs(value);
  const float whole = std::floor(magnitude);
  const float rounded = whole + std::floor(2 * (magnitude - whole));
  return std::copysign(rounded, value);
}

void quantize_q8_0(const float* x, std::byte* out, std::size_t offset) {
  float largest = 0;
  for (std::size_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::abs(x[i]));
  const float d = largest / 127;
  check_block(GgufType::kQ8_0, x, d, offset);
  const float id = inverse(d);
  put_half(out, d);
  for (std::size_t i = 0; i < kBlock; ++i) out[2 + i] = std::byte{to_byte(round_away(x[i] * id))};
}

void pack_nibbles(const std::uint8_t* q, std::byte* out) {
  for (std::size_t i = 0; i < kBlock / 2; ++i) {
    out[i] = static_cast<std::byte>(q[i] | (q[i + kBlock / 2] << 4));
  }
}

void quantize_q4_0(const float* x, std::byte* out, std::size_t offset) {
  float extreme = x[0];  // the signed value of the largest magnitude, the first of equals
  for (std::size_t i = 1; i < kBlock; ++i) {
    if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
  }
  const float d = extreme / -8;
  check_block(GgufType::kQ4_0, x, d, offset);
  const float id = inverse(d);
  put_half(out, d);
  std::uint8_t q[kBlock];
  for (std::size_t i = 0; i < kBlock; ++i) q[i] = to_nibble(x[i] * id + 8.5f);
  pack_nibbles(q, out + 2);
}

void quantize_q4_1(const float* x, std::byte* out, std::size_t offset) {
  const auto [low, high] = std::minmax_element(x, x + kBlock);
  const float minimum = *low;
  const float d = (*high - minimum) / 15;
  check_block(GgufType::kQ4_1, x, std::max(std::abs(d), std::abs(minimum)), offset);
  const float id = inverse(d);
  put_half(out, d);
  put_half(out + 2, minimum);
  std::uint8_t q[kBlock];
  for (std::size_t i = 0; i < kBlock; ++i) q[i] = to_nibble((x[i] - minimum) * id + 0.5f);
  pack_nibbles(q, out + 4);
}

void quantize_block(GgufType type, const float* x, std::byte* out, std::size_t offset) {
  if (type == GgufType::kQ8_0) quantize_q8_0(x, out, offset);
  if (type == GgufType::kQ4_0) quantize_q4_0(x, out, offset);
  if (type == GgufType::kQ4_1) quantize_q4_1(x, out, offset);
}

void check_request(GgufType type, std::size_t values, std::size_t out) {
  const GgufTypeInfo& info = gguf_type_info(type);
  if (type == GgufType::kQ5_0 || type == GgufType::kQ5_1 || info.block == 256) {
    throw Error(ErrorKind::kUnsupported, info.name, "we read this type but do not write it")
        .hint("choose f32, f16, bf16, q8_0, q4_0 or q4_1");
  }
  ESPALIER_ASSERT(static_cast<std::int64_t>(out) ==
                  gguf_bytes(type, static_cast<std::int64_t>(values)));
}

}  // namespace

void quantize_reference(GgufType type, std::span<const float> values, std::span<std::byte> out) {
  check_request(type, values.size(), out.size());
  if (type == GgufType::kF32) {
    if (!values.empty()) std::memcpy(out.data(), values.data(), values.size_bytes());
    return;
  }
  if (type == GgufType::kF16 || type == GgufType::kBF16) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint16_t bits =
          type == GgufType::kF16 ? float_to_half(values[i]) : float_to_bfloat(values[i]);
      std::memcpy(out.data() + 2 * i, &bits, sizeof(bits));
    }
    return;
  }
  const auto size = static_cast<std::size_t>(gguf_type_info(type).bytes);
  for (std::size_t i = 0; i < values.size(); i += kBlock) {
    quantize_block(type, values.data() + i, out.data() + i / kBlock * size, i);
  }
}

void quantize(GgufType type, std::span<const float> values, std::span<std::byte> out) {
  check_request(type, values.size(), out.size());
  if (type == GgufType::kF32) return quantize_reference(type, values, out);
  const GgufTypeInfo& info = gguf_type_info(type);
  const auto elements = static_cast<std::size_t>(info.block),
             size = static_cast<std::size_t>(info.bytes);
  const std::size_t blocks = values.size() / elements;
  const GgufSimd& simd = gguf_simd();
  std::size_t done = 0;
  while (done < blocks) {
    done += simd.quantize(type, values.data() + done * elements, blocks - done,
                          reinterpret_cast<std::uint8_t*>(out.data()) + done * size);
    if (done == blocks) break;
    quantize_block(type, values.data() + done * elements, out.data() + done * size,
                   done * elements);
    ++done;
  }
}

}  // namespace espalier
