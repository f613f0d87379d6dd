// The meaning of every block format, element by element; shortest correct code, never optimised.
// The layouts are those of the table in docs/formats/gguf.md. The vectorised decoder in
// simd_body_internal.h must be bit-equal to this.
#include <cstring>

#include "espalier/base/error.h"
#include "espalier/kernels/gguf_quants/gguf_quants.h"
#include "espalier/kernels/gguf_quants/half_internal.h"

namespace espalier {
namespace {

using Byte = std::uint8_t;

std::uint16_t u16_at(const Byte* bytes) {
  std::uint16_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

float half_at(const Byte* bytes) { return half_to_float(u16_at(bytes)); }

/// Nibble i of 32 elements in 16 bytes: the low halves come first.
int nibble(const Byte* q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }

/// The fifth bits of 32 elements, as a little-endian u32.
int fifth_bit(const Byte* high, int i) { return ((high[i / 8] >> (i % 8)) & 1) << 4; }

/// 6-bit scale and minimum of sub-block j in 0..7, packed in 12 bytes.
void scale_and_min(const Byte* s, int j, int& scale, int& minimum) {
  if (j < 4) {
    scale = s[j] & 63;
    minimum = s[j + 4] & 63;
  } else {
    scale = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
    minimum = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
  }
}

float q4_k_element(const Byte* b, int i, int high) {
  const int j = i / 32;
  const Byte packed = b[(j / 2) * 32 + i % 32];
  return static_cast<float>((j % 2 == 0 ? packed & 15 : packed >> 4) + high);
}

float k_element(const Byte* b, int i, bool five_bits) {
  int scale = 0, minimum = 0;
  scale_and_min(b + 4, i / 32, scale, minimum);
  const float d = half_at(b) * static_cast<float>(scale);
  const float dm = half_at(b + 2) * static_cast<float>(minimum);
  const int high = five_bits ? ((b[16 + i % 32] >> (i / 32)) & 1) << 4 : 0;
  const float product = d * q4_k_element(b + (five_bits ? 48 : 16), i, high);
  return product - dm;
}

float q6_k_element(const Byte* b, int i) {
  const Byte* ql = b;
  const Byte* qh = b + 128;
  const Byte* sc = b + 192;
  const int h = i / 128, k = i % 128 / 32, l = i % 32;
  const Byte low_byte = ql[64 * h + 32 * (k % 2) + l];
  const int low = k < 2 ? low_byte & 15 : low_byte >> 4;
  const int high = (qh[32 * h + l] >> (2 * k)) & 3;
  const auto scale = static_cast<std::int8_t>(sc[8 * h + 2 * k + (l >= 16 ? 1 : 0)]);
  const float d = half_at(b + 208) * static_cast<float>(scale);
  return d * static_cast<float>((low | (high << 4)) - 32);
}

float plus(float product, float minimum) { return product + minimum; }

float element(GgufType type, const Byte* b, int i) {
  switch (type) {
    case GgufType::kF32: {
      float value;
      std::memcpy(&value, b, sizeof(value));
      return value;
    }
    case GgufType::kF16:
      return half_at(b);
    case GgufType::kBF16:
      return bfloat_to_float(u16_at(b));
    case GgufType::kQ4_0:
      return half_at(b) * static_cast<float>(nibble(b + 2, i) - 8);
    case GgufType::kQ4_1:
      return plus(half_at(b) * static_cast<float>(nibble(b + 4, i)), half_at(b + 2));
    case GgufType::kQ5_0:
      return half_at(b) * static_cast<float>((nibble(b + 6, i) | fifth_bit(b + 2, i)) - 16);
    case GgufType::kQ5_1:
      return plus(half_at(b) * static_cast<float>(nibble(b + 8, i) | fifth_bit(b + 4, i)),
                  half_at(b + 2));
    case GgufType::kQ8_0:
      return half_at(b) * static_cast<float>(static_cast<std::int8_t>(b[2 + i]));
    case GgufType::kQ4_K:
      return k_element(b, i, false);
    case GgufType::kQ5_K:
      return k_element(b, i, true);
    case GgufType::kQ6_K:
      return q6_k_element(b, i);
  }
  assertion_failed("known GgufType", __FILE__, __LINE__);
}

}  // namespace

void dequantize_reference(GgufType type, std::span<const std::byte> bytes, std::span<float> out) {
  const GgufTypeInfo& info = gguf_type_info(type);
  ESPALIER_ASSERT(static_cast<std::int64_t>(bytes.size()) ==
                  gguf_bytes(type, static_cast<std::int64_t>(out.size())));
  const auto* block = reinterpret_cast<const Byte*>(bytes.data());
  const auto block_size = static_cast<std::size_t>(info.block);
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = element(type, block + i / block_size * static_cast<std::size_t>(info.bytes),
                     static_cast<int>(i % block_size));
  }
}

}  // namespace espalier
