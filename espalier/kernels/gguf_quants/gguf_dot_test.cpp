// quantized_linear against a double-precision product with reference-dequantised weights, on every
// instruction set.
#include "espalier/kernels/gguf_quants/gguf_dot.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/random.h"
#include "espalier/kernels/gguf_quants/half_internal.h"
#include "espalier/kernels/gguf_quants/simd_internal.h"

namespace espalier {
namespace {

constexpr GgufType kAllTypes[] = {GgufType::kF32,  GgufType::kF16,  GgufType::kBF16,
                                  GgufType::kQ4_0, GgufType::kQ4_1, GgufType::kQ5_0,
                                  GgufType::kQ5_1, GgufType::kQ8_0, GgufType::kQ4_K,
                                  GgufType::kQ5_K, GgufType::kQ6_K};

struct Matrix {
  GgufType type;
  std::int64_t out, in;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // dequantised by the reference
};

/// Random blocks whose float16 fields are small and finite.
Matrix random_matrix(GgufType type, std::int64_t out, std::int64_t in, RandomStream& random) {
  Matrix m{type, out, in, {}, {}};
  m.values.resize(static_cast<std::size_t>(out * in));
  m.bytes.resize(static_cast<std::size_t>(gguf_bytes(type, out * in)));
  const GgufTypeInfo& info = gguf_type_info(type);
  for (std::byte& byte : m.bytes) byte = static_cast<std::byte>(random.next());
  const auto size = static_cast<std::size_t>(info.bytes);
  for (std::size_t at = 0; at < m.bytes.size(); at += size) {
    const auto put_half = [&](std::size_t offset) {
      const std::uint16_t bits = float_to_half(static_cast<float>(random.uniform() * 0.02 - 0.01));
      std::memcpy(m.bytes.data() + at + offset, &bits, 2);
    };
    if (type == GgufType::kF32) {
      const auto value = static_cast<float>(random.uniform() - 0.5);
      std::memcpy(m.bytes.data() + at, &value, 4);
    } else if (type == GgufType::kBF16) {
      const std::uint16_t bits = float_to_bfloat(static_cast<float>(random.uniform() - 0.5));
      std::memcpy(m.bytes.data() + at, &bits, 2);
    } else if (type == GgufType::kQ6_K) {
      put_half(208);
    } else {
      put_half(0);
      if (size > 22 || type == GgufType::kQ4_1) {
        if (type != GgufType::kQ8_0) put_half(2);
      }
    }
  }
  dequantize_reference(type, m.bytes, m.values);
  return m;
}

std::vector<float> random_rows(std::int64_t rows, std::int64_t in, RandomStream& random) {
  std::vector<float> x(static_cast<std::size_t>(rows * in));
  for (float& value : x) value = static_cast<float>(random.uniform() * 2 - 1);
  return x;
}

/// |error| of a float32 sum of n products is at most n * eps * sum |w x|, whatever the order.
void expect_close(const Matrix& m, const std::vector<float>& x, std::int64_t rows,
                  const std::vector<float>& y) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t o = 0; o < m.out; ++o) {
      double sum = 0, magnitude = 0;
      for (std::int64_t i = 0; i < m.in; ++i) {
        const double product =
            static_cast<double>(m.values[static_cast<std::size_t>(o * m.in + i)]) *
            x[static_cast<std::size_t>(r * m.in + i)];
        sum += product;
        magnitude += std::abs(product);
      }
      const double bound = static_cast<double>(m.in) * 0x1.0p-24 * magnitude;
      ASSERT_NEAR(y[static_cast<std::size_t>(r * m.out + o)], sum, bound)
          << gguf_type_info(m.type).name << " rows " << rows << " row " << r << " output " << o;
    }
  }
}

TEST(QuantizedLinear, EqualsTheProductForEveryTypeAndRowCount) {
  RandomStream random(17);
  for (const GgufType type : kAllTypes) {
    const std::int64_t block = gguf_type_info(type).block;
    for (const std::int64_t in : {block * 3, block == 1 ? std::int64_t{67} : block}) {
      const Matrix m = random_matrix(type, 11, in, random);
      for (const std::int64_t rows : {1, 2, 3, 4, 5, 9}) {
        const auto x = random_rows(rows, in, random);
        std::vector<float> y(static_cast<std::size_t>(rows * m.out), -1e9f);
        quantized_linear(type, m.bytes, m.out, in, x, rows, y);
        expect_close(m, x, rows, y);
      }
    }
  }
}

TEST(QuantizedLinear, EveryInstructionSetAgrees) {
  std::size_t sets = 0;
  const GgufSimd* const* all = gguf_simd_all(sets);
  RandomStream random(23);
  for (const GgufType type : kAllTypes) {
    const std::int64_t in = 1280;  // two and a half column chunks
    const Matrix m = random_matrix(type, 7, in, random);
    const auto x = random_rows(6, in, random);
    const auto row_bytes = static_cast<std::size_t>(gguf_bytes(type, in));
    for (std::size_t s = 0; s < sets; ++s) {
      for (const std::int64_t rows : {1, 2, 3, 4, 6}) {
        std::vector<float> y(static_cast<std::size_t>(rows * m.out));
        std::vector<float> scratch(
            static_cast<std::size_t>(rows * kGgufLinearOutputs * kGgufMaxLanes));
        for (std::int64_t o = 0; o < m.out; o += kGgufLinearOutputs) {
          const auto outputs =
              static_cast<int>(std::min<std::int64_t>(kGgufLinearOutputs, m.out - o));
          all[s]->linear(type,
                         reinterpret_cast<const std::uint8_t*>(m.bytes.data()) +
                             static_cast<std::size_t>(o) * row_bytes,
                         row_bytes, static_cast<std::size_t>(in), outputs, x.data(),
                         static_cast<std::size_t>(rows), y.data() + o,
                         static_cast<std::size_t>(m.out), scratch.data());
        }
        expect_close(m, x, rows, y);
      }
    }
  }
}

TEST(QuantizedLinear, ARowDependsNeitherOnThreadsNorOnItsNeighbours) {
  RandomStream random(29);
  const Matrix m = random_matrix(GgufType::kQ4_0, 1022, 1056, random);
  const std::int64_t rows = 300;  // more than one pass
  const auto x = random_rows(rows, m.in, random);
  const auto product = [&](std::int64_t first, std::int64_t count, int threads) {
    at::set_num_threads(threads);
    std::vector<float> y(static_cast<std::size_t>(count * m.out));
    quantized_linear(m.type, m.bytes, m.out, m.in,
                     std::span(x).subspan(static_cast<std::size_t>(first * m.in),
                                          static_cast<std::size_t>(count * m.in)),
                     count, y);
    return y;
  };
  const int threads = at::get_num_threads();
  const std::vector<float> all = product(0, rows, threads);
  EXPECT_EQ(all, product(0, rows, 1));
  for (const std::int64_t first : {std::int64_t{0}, std::int64_t{7}, rows - 3}) {
    for (const std::int64_t count : {1, 2, 3}) {
      const std::vector<float> part = product(first, count, 1 + threads / 2);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + first * m.out))
          << first << " " << count;
    }
  }
  at::set_num_threads(threads);
}

TEST(QuantizedLinear, OneRowHasTheBitsItHasAmongOthers) {
  RandomStream random(12);
  for (const GgufType type : kAllTypes) {
    const std::int64_t in = gguf_type_info(type).block == 1 ? 1040 : 1536;  // several pieces
    const Matrix m = random_matrix(type, 7, in, random);  // whole and left-over outputs
    const auto x = random_rows(3, in, random);
    std::vector<float> all(static_cast<std::size_t>(3 * m.out)),
        one(static_cast<std::size_t>(m.out));
    quantized_linear(type, m.bytes, m.out, in, x, 3, all);
    for (std::int64_t row = 0; row < 3; ++row) {
      const auto part = std::span<const float>(x).subspan(static_cast<std::size_t>(row * in),
                                                          static_cast<std::size_t>(in));
      quantized_linear(type, m.bytes, m.out, in, part, 1, one);
      for (std::size_t o = 0; o < one.size(); ++o)
        EXPECT_EQ(one[o], all[static_cast<std::size_t>(row * m.out) + o])
            << gguf_type_info(type).name << " row " << row << " output " << o;
    }
  }
}

TEST(QuantizedLinear, EmptySizes) {
  std::vector<float> y(3, 7.0f);
  quantized_linear(GgufType::kQ8_0, {}, 0, 32, std::vector<float>(32), 1, {});
  quantized_linear(GgufType::kF32, {}, 3, 0, {}, 1, y);
  EXPECT_EQ(y, std::vector<float>(3, 0.0f));
  quantized_linear(GgufType::kF32, std::vector<std::byte>(4 * 6), 2, 3, {}, 0, {});
}

TEST(QuantizedLinear, WrongSizesAreOurBug) {
  const std::vector<std::byte> weight(34 * 2);
  const std::vector<float> x(32);
  std::vector<float> y(2);
  EXPECT_NO_THROW(quantized_linear(GgufType::kQ8_0, weight, 2, 32, x, 1, y));
  EXPECT_THROW(quantized_linear(GgufType::kQ8_0, weight, 3, 32, x, 1, y), Error);
  EXPECT_THROW(quantized_linear(GgufType::kQ8_0, weight, 2, 31, x, 1, y), Error);
  EXPECT_THROW(quantized_linear(GgufType::kQ8_0, weight, 2, 32, x, 2, y), Error);
}

}  // namespace
}  // namespace espalier
