// The table of tensor types, and the choice of instruction set.
#include "espalier/kernels/gguf_quants/gguf_quants.h"

#include <array>
#include <cctype>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/gguf_quants/simd_internal.h"

namespace espalier {
namespace {

struct TypeRow {
  GgufType type;
  GgufTypeInfo info;
};

constexpr std::array<TypeRow, 11> kTypes{{
    {GgufType::kF32, {"F32", 1, 4}},
    {GgufType::kF16, {"F16", 1, 2}},
    {GgufType::kBF16, {"BF16", 1, 2}},
    {GgufType::kQ4_0, {"Q4_0", 32, 18}},
    {GgufType::kQ4_1, {"Q4_1", 32, 20}},
    {GgufType::kQ5_0, {"Q5_0", 32, 22}},
    {GgufType::kQ5_1, {"Q5_1", 32, 24}},
    {GgufType::kQ8_0, {"Q8_0", 32, 34}},
    {GgufType::kQ4_K, {"Q4_K", 256, 144}},
    {GgufType::kQ5_K, {"Q5_K", 256, 176}},
    {GgufType::kQ6_K, {"Q6_K", 256, 210}},
}};

/// The sets this processor can run, best first.
struct Available {
  std::array<const GgufSimd*, 3> sets{};
  std::size_t count = 0;

  Available() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#if !defined(__clang__)  // clang 14 has no name for f16c; every processor with AVX2 has it
    avx2 = avx2 && __builtin_cpu_supports("f16c");
#endif
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      sets[count++] = &kGgufAvx512;
    }
    if (avx2) sets[count++] = &kGgufAvx2;
#endif
    sets[count++] = &kGgufBaseline;
  }
};

const Available& available() {
  static const Available sets;
  return sets;
}

}  // namespace

const GgufSimd& gguf_simd() { return *available().sets[0]; }

const GgufSimd* const* gguf_simd_all(std::size_t& count) {
  count = available().count;
  return available().sets.data();
}

std::optional<GgufTypeInfo> find_gguf_type(std::uint32_t id) {
  for (const TypeRow& row : kTypes) {
    if (static_cast<std::uint32_t>(row.type) == id) return row.info;
  }
  return std::nullopt;
}

const GgufTypeInfo& gguf_type_info(GgufType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row.info;
  }
  assertion_failed("known GgufType", __FILE__, __LINE__);
}

std::optional<GgufType> parse_gguf_type(std::string_view name) {
  for (const TypeRow& row : kTypes) {
    bool equal = name.size() == row.info.name.size();
    for (std::size_t i = 0; equal && i < name.size(); ++i) {
      equal = std::toupper(static_cast<unsigned char>(name[i])) == row.info.name[i];
    }
    if (equal) return row.type;
  }
  return std::nullopt;
}

std::int64_t gguf_bytes(GgufType type, std::int64_t numel) {
  const GgufTypeInfo& info = gguf_type_info(type);
  ESPALIER_ASSERT(numel >= 0 && numel % info.block == 0);
  std::int64_t bytes = 0;
  ESPALIER_ASSERT(!__builtin_mul_overflow(numel / info.block, info.bytes, &bytes));
  return bytes;
}

void dequantize(GgufType type, std::span<const std::byte> bytes, std::span<float> out) {
  ESPALIER_ASSERT(static_cast<std::int64_t>(bytes.size()) ==
                  gguf_bytes(type, static_cast<std::int64_t>(out.size())));
  const auto blocks = out.size() / static_cast<std::size_t>(gguf_type_info(type).block);
  gguf_simd().dequantize(type, reinterpret_cast<const std::uint8_t*>(bytes.data()), blocks,
                         out.data());
}

}  // namespace espalier
