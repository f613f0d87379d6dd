// Block formats: against the gguf Python package (testdata), hand-computed blocks, an independent
// half implementation, and every instruction set of this machine against the reference, bit by bit.
#include "espalier/kernels/gguf_quants/gguf_quants.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <numeric>
#include <sstream>
#include <vector>

#include <gtest/gtest.h>

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

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

std::vector<std::byte> from_hex(const std::string& hex) {
  std::vector<std::byte> bytes(hex.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return bytes;
}

std::vector<float> floats_from_hex(const std::string& hex) {
  const auto bytes = from_hex(hex);
  std::vector<float> values(bytes.size() / 4);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits(values.size());
  if (!values.empty()) std::memcpy(bits.data(), values.data(), 4 * values.size());
  return bits;
}

struct Case {
  std::string action, first, second;
  GgufType type;
};

std::vector<Case> read_cases() {
  std::ifstream file(ESPALIER_SOURCE_DIR "/espalier/kernels/gguf_quants/testdata/gguf_quants.txt");
  std::vector<Case> cases;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    Case entry;
    std::string type;
    words >> entry.action >> type >> entry.first >> entry.second;
    entry.type = parse_gguf_type(type).value();
    cases.push_back(std::move(entry));
  }
  return cases;
}

TEST(GgufQuants, DequantiseIsBitEqualToThePythonPackage) {
  int seen = 0;
  for (const Case& entry : read_cases()) {
    if (entry.action != "dequantize") continue;
    ++seen;
    const auto bytes = from_hex(entry.first);
    const auto expected = floats_from_hex(entry.second);
    std::vector<float> out(expected.size());
    dequantize_reference(entry.type, bytes, out);
    EXPECT_EQ(bits_of(out), bits_of(expected)) << gguf_type_info(entry.type).name;
    dequantize(entry.type, bytes, out);
    EXPECT_EQ(bits_of(out), bits_of(expected)) << gguf_type_info(entry.type).name;
  }
  EXPECT_EQ(seen, 11);
}

TEST(GgufQuants, QuantiseIsBitEqualToThePythonPackage) {
  int seen = 0;
  for (const Case& entry : read_cases()) {
    if (entry.action != "quantize") continue;
    ++seen;
    const auto values = floats_from_hex(entry.first);
    const auto expected = from_hex(entry.second);
    std::vector<std::byte> out(expected.size());
    quantize_reference(entry.type, values, out);
    EXPECT_EQ(out, expected) << gguf_type_info(entry.type).name << " case " << seen;
    quantize(entry.type, values, out);
    EXPECT_EQ(out, expected) << gguf_type_info(entry.type).name << " case " << seen;
  }
  EXPECT_EQ(seen, 5 * 15);
}

/// byte_i = (37 i + 11) mod 256, with .0625 in every float16 field.
std::vector<std::byte> synthetic_block(GgufType type,
                                       std::initializer_list<std::size_t> half_fields) {
  std::vector<std::byte> block(static_cast<std::size_t>(gguf_type_info(type).bytes));
  for (std::size_t i = 0; i < block.size(); ++i)
    block[i] = static_cast<std::byte>((37 * i + 11) % 256);
  for (const std::size_t at : half_fields) {
    block[at] = std::byte{0x00};
    block[at + 1] = std::byte{0x2c};
  }
  return block;
}

struct Sums {
  double sum = 0, squares = 0;
};

Sums check_synthetic(GgufType type, std::initializer_list<std::size_t> half_fields,
                     std::array<float, 3> first) {
  const auto block = synthetic_block(type, half_fields);
  std::vector<float> y(static_cast<std::size_t>(gguf_type_info(type).block));
  dequantize(type, block, y);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(y[i], first[i]) << gguf_type_info(type).name << " element " << i;
  Sums sums;
  for (const float value : y) {
    sums.sum += value;
    sums.squares += static_cast<double>(value) * value;
  }
  return sums;
}

TEST(GgufQuants, SyntheticBlocksOfTheSpecification) {
  EXPECT_EQ(check_synthetic(GgufType::kQ4_0, {0}, {-.1875f, .125f, .4375f}).sum, -1.3125);
  EXPECT_EQ(check_synthetic(GgufType::kQ4_1, {0, 2}, {1, .3125f, .625f}).sum, 17.3125);
  EXPECT_EQ(check_synthetic(GgufType::kQ8_0, {0}, {5.3125f, 7.625f, -6.0625f}).sum, -11);
  const Sums k = check_synthetic(GgufType::kQ4_K, {0, 2}, {18.125f, -3.1875f, 6.5f});
  EXPECT_EQ(k.sum, 3138.5);
  EXPECT_EQ(k.squares, 87913.53125);
}

TEST(GgufQuants, EveryInstructionSetEqualsTheReference) {
  std::size_t sets = 0;
  const GgufSimd* const* all = gguf_simd_all(sets);
  ASSERT_GE(sets, 1u);
  RandomStream random(5);
  for (const GgufType type : kAllTypes) {
    const GgufTypeInfo& info = gguf_type_info(type);
    for (const std::size_t blocks : {0u, 1u, 2u, 13u, 67u}) {
      std::vector<std::byte> bytes(blocks * static_cast<std::size_t>(info.bytes));
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
      std::vector<float> expected(blocks * static_cast<std::size_t>(info.block)),
          out(expected.size());
      dequantize_reference(type, bytes, expected);
      for (std::size_t s = 0; s < sets; ++s) {
        all[s]->dequantize(type, reinterpret_cast<const std::uint8_t*>(bytes.data()), blocks,
                           out.data());
        for (std::size_t i = 0; i < out.size(); ++i) {
          // Which NaN comes out of two NaN operands is the processor's choice; that it is one is
          // not.
          if (std::isnan(expected[i]) && std::isnan(out[i])) continue;
          ASSERT_EQ(float_bits(out[i]), float_bits(expected[i]))
              << all[s]->name << " " << info.name << " element " << i;
        }
      }
    }
  }
}

/// Blocks of every temper: ordinary, tiny, ties, exact halves, zeros of both signs, one-sided,
/// huge.
std::vector<float> tempered_values(std::size_t blocks, RandomStream& random) {
  std::vector<float> values(32 * blocks);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto value = static_cast<float>(random.uniform() * 2 - 1);
    switch (i / 32 % 10) {
      case 0:
        values[i] = value * 1e-40f;
        break;
      case 1:
        values[i] = value * 1e-7f;
        break;
      case 2:
        values[i] = value < 0 ? -2.0f : 2.0f;
        break;
      case 3:
        values[i] = std::round(value * 16) / 2;
        break;
      case 4:
        values[i] = value < 0 ? -0.0f : 0.0f;
        break;
      case 5:
        values[i] = std::abs(value);
        break;
      case 6:
        values[i] = value < 0.5f ? 0.0f : value;
        break;
      case 7:
        values[i] = value * 60000;
        break;
      default:
        values[i] = value;
    }
  }
  return values;
}

TEST(GgufQuants, EveryInstructionSetQuantisesAsTheReference) {
  std::size_t sets = 0;
  const GgufSimd* const* all = gguf_simd_all(sets);
  RandomStream random(41);
  const std::vector<float> values = tempered_values(4000, random);
  for (const GgufType type :
       {GgufType::kF16, GgufType::kBF16, GgufType::kQ8_0, GgufType::kQ4_0, GgufType::kQ4_1}) {
    const GgufTypeInfo& info = gguf_type_info(type);
    const std::size_t blocks = values.size() / static_cast<std::size_t>(info.block);
    const auto size = static_cast<std::size_t>(info.bytes),
               block = static_cast<std::size_t>(info.block);
    std::vector<std::byte> expected(blocks * size), out(blocks * size);
    quantize_reference(type, values, expected);
    quantize(type, values, out);
    EXPECT_EQ(out, expected) << info.name;
    for (std::size_t s = 0; s < sets; ++s) {
      std::size_t done = 0, left_out = 0;
      while (done < blocks) {
        const std::size_t count =
            all[s]->quantize(type, values.data() + done * block, blocks - done,
                             reinterpret_cast<std::uint8_t*>(out.data()) + done * size);
        ASSERT_TRUE(std::equal(out.begin() + static_cast<std::ptrdiff_t>(done * size),
                               out.begin() + static_cast<std::ptrdiff_t>((done + count) * size),
                               expected.begin() + static_cast<std::ptrdiff_t>(done * size)))
            << all[s]->name << " " << info.name << " from block " << done;
        done += count + 1;
        ++left_out;
      }
      EXPECT_LT(left_out, blocks / 2)
          << all[s]->name << " " << info.name;  // the vector code does the work
    }
  }
}

TEST(Half, EveryPatternDecodesAsElsewhere) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float ours = half_to_float(static_cast<std::uint16_t>(bits));
    const float theirs = c10::Half(static_cast<std::uint16_t>(bits), c10::Half::from_bits());
    if (std::isnan(theirs)) {
      ASSERT_TRUE(std::isnan(ours)) << bits;
      continue;
    }
    ASSERT_EQ(float_bits(ours), float_bits(theirs)) << bits;
    ASSERT_EQ(float_to_half(ours), bits);  // every half survives the round trip, denormals included
  }
}

TEST(Half, RoundsToNearestEvenEverywhere) {
  RandomStream random(9);
  for (int i = 0; i < 400'000; ++i) {
    auto bits = static_cast<std::uint32_t>(random.next());
    // Half of the tries near float16's range, and exact ties among them.
    if (i % 2 == 0)
      bits = (bits & 0x80000fffu) |
             ((0x33000000u + static_cast<std::uint32_t>(random.below(0x15000000u))) & 0x7ffff000u);
    if (i % 4 == 0) bits &= ~0xfffu;
    const float value = bits_float(bits);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(half_to_float(float_to_half(value))));
      ASSERT_TRUE(std::isnan(bfloat_to_float(float_to_bfloat(value))));
      continue;
    }
    ASSERT_EQ(float_to_half(value), c10::Half(value).x) << value;
    ASSERT_EQ(float_to_bfloat(value), c10::BFloat16(value).x) << value;
  }
}

TEST(Half, SpecialValues) {
  EXPECT_EQ(float_to_half(65504.0f), 0x7bff);
  EXPECT_EQ(float_to_half(65519.996f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(float_to_half(0x1.0p-24f), 0x0001);
  EXPECT_EQ(float_to_half(0x1.0p-25f), 0x0000);  // a tie, to even
  EXPECT_EQ(float_to_half(0x1.8p-24f), 0x0002);  // a tie, to even
  EXPECT_EQ(float_to_half(-0.0f), 0x8000);
  EXPECT_EQ(float_to_bfloat(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(float_to_bfloat(bits_float(0x7f800001u)),
            0x7fc0);  // a NaN whose payload would round away
}

TEST(GgufQuants, TypesAndSizes) {
  for (const GgufType type : kAllTypes) {
    const GgufTypeInfo& info = gguf_type_info(type);
    EXPECT_EQ(parse_gguf_type(info.name), type);
    EXPECT_EQ(find_gguf_type(static_cast<std::uint32_t>(type))->name, info.name);
    EXPECT_EQ(gguf_bytes(type, 4 * info.block), 4 * info.bytes);
  }
  EXPECT_EQ(parse_gguf_type("q4_k"), GgufType::kQ4_K);
  EXPECT_FALSE(parse_gguf_type("q4_k_m").has_value());
  EXPECT_FALSE(parse_gguf_type("").has_value());
  EXPECT_FALSE(find_gguf_type(4).has_value());   // Q4_2, removed from the format
  EXPECT_FALSE(find_gguf_type(10).has_value());  // Q2_K, which we do not have
  EXPECT_THROW(gguf_bytes(GgufType::kQ8_0, 33), Error);
  EXPECT_THROW(gguf_bytes(GgufType::kF32, std::numeric_limits<std::int64_t>::max()), Error);
}

TEST(GgufQuants, QuantiseRefusesWhatItCannotKeep) {
  std::vector<float> values(32, 1.0f);
  std::vector<std::byte> out(34);
  const auto error_of = [&](GgufType type) {
    out.resize(static_cast<std::size_t>(gguf_type_info(type).bytes));
    try {
      quantize(type, values, out);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "did not throw";
    return Error(ErrorKind::kInternal, "", "");
  };
  values[7] = std::numeric_limits<float>::quiet_NaN();
  for (const GgufType type : {GgufType::kQ8_0, GgufType::kQ4_0, GgufType::kQ4_1}) {
    const Error error = error_of(type);
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(error.message().find("element 7 is nan"), std::string::npos) << error.message();
    EXPECT_FALSE(error.hint_text().empty());
  }
  values[7] = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(error_of(GgufType::kQ4_1).kind(), ErrorKind::kInput);
  values[7] = 1e7f;  // 1e7 / 127 is beyond float16
  EXPECT_NE(error_of(GgufType::kQ8_0).message().find("float16 ends at 65504"), std::string::npos);
  values.resize(256);
  EXPECT_EQ(error_of(GgufType::kQ4_K).kind(), ErrorKind::kUnsupported);
}

TEST(GgufQuants, QuantisationErrorStaysWithinHalfAStep) {
  RandomStream random(3);
  std::vector<float> values(32 * 50);
  for (float& value : values) value = static_cast<float>(random.uniform() * 2 - 1);
  struct Bound {
    GgufType type;
    float steps;  // largest error in units of the block's scale
  };
  // Q4_0 clamps the opposite extreme by up to one step; the float16 scale adds a little.
  for (const Bound bound : {Bound{GgufType::kQ8_0, 0.57f}, Bound{GgufType::kQ4_0, 1.01f},
                            Bound{GgufType::kQ4_1, 0.51f}}) {
    std::vector<std::byte> packed(static_cast<std::size_t>(gguf_bytes(bound.type, 32 * 50)));
    std::vector<float> back(values.size());
    quantize(bound.type, values, packed);
    dequantize(bound.type, packed, back);
    for (std::size_t block = 0; block < 50; ++block) {
      std::uint16_t d;
      std::memcpy(&d, packed.data() + block * packed.size() / 50, 2);
      const float scale = std::abs(half_to_float(d));
      for (std::size_t i = 0; i < 32; ++i) {
        ASSERT_LE(std::abs(back[block * 32 + i] - values[block * 32 + i]), bound.steps * scale)
            << gguf_type_info(bound.type).name;
      }
    }
  }
}

}  // namespace
}  // namespace espalier
