// NF4 against hand-computed bytes, its definition and numbers of the bitsandbytes package; products
// against the dequantised weight.
#include "espalier/kernels/nf4/nf4.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/kernels/matmul/matmul.h"

namespace espalier {
namespace {

/// x_i = 0.3 (2i / 127 - 1), the example of the specification.
at::Tensor ramp() {
  std::vector<float> x(128);
  for (int i = 0; i < 128; ++i)
    x[static_cast<std::size_t>(i)] = static_cast<float>(0.3 * (2.0 * i / 127 - 1));
  return at::tensor(x).view({2, 64});
}

void expect_equal(const Nf4Weight& a, const Nf4Weight& b) {
  EXPECT_EQ(a.shape, b.shape);
  EXPECT_TRUE(a.packed.equal(b.packed));
  EXPECT_TRUE(a.absmax.equal(b.absmax));
  EXPECT_EQ(a.nested(), b.nested());
  if (!a.nested() || !b.nested()) return;
  EXPECT_TRUE(a.nested_absmax.equal(b.nested_absmax));
  EXPECT_TRUE(a.nested_map.equal(b.nested_map));
  EXPECT_EQ(a.nested_offset, b.nested_offset);
}

TEST(Nf4, TablesAreThePublishedOnes) {
  double sum = 0;
  for (const float value : nf4_dynamic_map()) sum += std::fabs(value);
  EXPECT_FLOAT_EQ(nf4_dynamic_map().front(), -0.99296874f);
  EXPECT_EQ(nf4_dynamic_map().back(), 1.0f);
  EXPECT_NEAR(sum, 75.105263, 1e-5);
  EXPECT_TRUE(std::is_sorted(nf4_dynamic_map().begin(), nf4_dynamic_map().end()));
  EXPECT_EQ(nf4_levels()[7], 0.0f);
}

TEST(Nf4, RampGivesTheBytesOfTheSpecification) {
  const Nf4Weight w = nf4_quantize(ramp(), {.double_quantised = false});
  EXPECT_TRUE(w.absmax.equal(at::full({2}, 0.3f)));
  const auto bytes = [&](std::int64_t first) {
    const auto* data = w.packed.const_data_ptr<std::uint8_t>() + first;
    return std::vector<int>(data, data + 8);
  };
  EXPECT_EQ(bytes(0), (std::vector<int>{0, 0, 0, 0, 0, 17, 17, 17}));
  EXPECT_EQ(bytes(32), (std::vector<int>{119, 120, 136, 136, 153, 153, 154, 170}));
  const at::Tensor error = (nf4_dequantize(w, at::kFloat) - ramp()).abs();
  EXPECT_NEAR(error.max().item<double>(), 0.043898, 1e-6);
}

TEST(Nf4, ErrorOnNormalValuesIsWhatTheFormatAllows) {
  at::manual_seed(0);
  const at::Tensor x = at::randn({512, 256});
  const at::Tensor error =
      nf4_dequantize(nf4_quantize(x, {.double_quantised = false}), at::kFloat) - x;
  EXPECT_NEAR(error.square().mean().sqrt().item<double>(), 0.0919, 0.001);
}

TEST(Nf4, FastPathsEqualTheDefinition) {
  at::manual_seed(1);
  for (const auto& [rows, columns, block] : {std::tuple{96, 64, 64},
                                             {33, 50, 64},
                                             {7, 3, 32},
                                             {1, 1, 64},
                                             {300, 257, 128},
                                             {513, 64, 64}}) {
    const at::Tensor x = 0.05 * at::randn({rows, columns});
    for (const bool nested : {false, true}) {
      const Nf4Options options{nested, block};
      const Nf4Weight w = nf4_quantize(x, options);
      expect_equal(w, nf4_quantize_reference(x, options));
      const at::Tensor expected = nf4_dequantize_reference(w);
      EXPECT_TRUE(nf4_dequantize(w, at::kFloat).equal(expected)) << rows << "x" << columns;
      EXPECT_TRUE(nf4_dequantize(w, at::kBFloat16).equal(expected.to(at::kBFloat16)));
      EXPECT_TRUE(nf4_dequantize(w, at::kHalf).equal(expected.to(at::kHalf)));
      if (rows > 2) {
        EXPECT_TRUE(
            nf4_dequantize_rows(w, 1, rows - 2, at::kFloat).equal(expected.narrow(0, 1, rows - 2)));
      }
    }
  }
}

TEST(Nf4, HalfPrecisionWeightsQuantiseAsTheirFloatValues) {
  const at::Tensor x = at::randn({64, 64}).to(at::kBFloat16);
  expect_equal(nf4_quantize(x), nf4_quantize(x.to(at::kFloat)));
}

TEST(Nf4, ValuesRoundThroughTheTypeAFileNames) {
  Nf4Weight w = nf4_quantize(at::randn({64, 64}));
  const at::Tensor half = nf4_dequantize(w, at::kHalf);
  w.rounding = at::kHalf;
  EXPECT_TRUE(nf4_dequantize(w, at::kFloat).equal(half.to(at::kFloat)));
  EXPECT_TRUE(nf4_dequantize(w, at::kHalf).equal(half));
}

TEST(Nf4, MidpointsGoDownAndZerosStayZero) {
  at::Tensor x = at::zeros({1, 64});
  x[0][0] = 1;
  const float middle = (nf4_levels()[9] + nf4_levels()[10]) / 2;
  x[0][1] = middle;
  x[0][2] = std::nextafter(middle, 1.0f);
  const Nf4Weight w = nf4_quantize(x, {.double_quantised = false});
  EXPECT_EQ(w.packed[0].item<int>(), (15 << 4) | 9);
  EXPECT_EQ(w.packed[1].item<int>(), (10 << 4) | 7);
  const Nf4Weight zeros = nf4_quantize(at::zeros({2, 64}), {.double_quantised = false});
  EXPECT_TRUE(zeros.packed.eq(0x77).all().item<bool>());
  EXPECT_TRUE(nf4_dequantize(zeros, at::kFloat).equal(at::zeros({2, 64})));
}

TEST(Nf4, SizeIsFourBitsAndAnEighth) {
  const Nf4Weight w = nf4_quantize(at::randn({1024, 1024}));
  const double bits = 8.0 * static_cast<double>(w.nbytes() - 1024) / (1024 * 1024);
  EXPECT_NEAR(bits, 4 + 8.0 / 64 + 32.0 / (64 * 256), 1e-9);
}

TEST(Nf4, ProductsEqualThoseOfTheDequantisedWeight) {
  at::manual_seed(2);
  // The last shape takes several tiles.
  for (const auto& [rows, in, out] : {std::tuple{20, 96, 130}, {1, 64, 64}, {9, 2048, 1100}}) {
    const Nf4Weight w = nf4_quantize(at::randn({out, in}) / std::sqrt(double(in)));
    const at::Tensor full = nf4_dequantize(w, at::kFloat), bias = at::randn({out});
    const at::Tensor x = at::randn({rows, in}).requires_grad_(), g = at::randn({rows, out});
    const at::Tensor y = nf4_matmul_nt(x, w, bias), expected = at::linear(x, full, bias);
    EXPECT_TRUE(y.allclose(expected, 1e-4, 1e-4));
    const at::Tensor grad = torch::autograd::grad({y}, {x}, {g})[0];
    EXPECT_TRUE(grad.allclose(at::matmul(g, full), 1e-4, 1e-4));
  }
}

TEST(Nf4, BiasGetsAGradientWhenItTrains) {
  const Nf4Weight w = nf4_quantize(at::randn({32, 64}));
  const at::Tensor x = at::randn({2, 5, 64}), bias = at::randn({32}).requires_grad_();
  const at::Tensor grad = torch::autograd::grad({nf4_matmul_nt(x, w, bias).sum()}, {bias})[0];
  EXPECT_TRUE(grad.equal(at::full({32}, 10.0f)));
}

std::vector<std::uint8_t> from_hex(const std::string& text) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
  return bytes;
}

void expect_bytes(const at::Tensor& found, const std::string& hex, const std::string& what) {
  const std::vector<std::uint8_t> expected = from_hex(hex);
  ASSERT_EQ(found.nbytes(), expected.size()) << what;
  EXPECT_EQ(0, std::memcmp(found.const_data_ptr(), expected.data(), expected.size())) << what;
}

// Made by tests/fixtures/make_nf4.py.
TEST(Nf4, BytesAreThoseOfBitsandbytes) {
  std::ifstream file(std::string(ESPALIER_SOURCE_DIR) + "/espalier/kernels/nf4/testdata/nf4.txt");
  int cases = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("#")) continue;
    std::istringstream words(line);
    std::string name, packed, absmax, nested_absmax, offset;
    std::int64_t rows = 0, columns = 0;
    int nested = 0;
    words >> name >> rows >> columns >> nested >> packed >> absmax >> nested_absmax >> offset;
    at::Tensor x = at::empty({rows, columns}, at::kFloat);
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const double fraction =
          static_cast<double>((i * 2654435761) % (std::int64_t{1} << 32)) / 4294967296.0;
      x.data_ptr<float>()[i] =
          static_cast<float>((fraction - 0.5) * static_cast<double>(1 + (i / 64) % 7) / 100);
    }
    const Nf4Weight w = nf4_quantize(x, {nested != 0, 64});
    const std::string what = name + (nested != 0 ? ", nested" : ", plain");
    expect_bytes(w.packed, packed, what);
    expect_bytes(w.absmax, absmax, what);
    if (nested != 0) {
      expect_bytes(w.nested_absmax, nested_absmax, what);
      expect_bytes(at::full({1}, w.nested_offset), offset, what);
    }
    ++cases;
  }
  EXPECT_EQ(cases, 4);
}

TEST(Nf4, RefusesWhatItCannotHold) {
  at::Tensor x = at::randn({2, 64});
  x[1][3] = std::nanf("");
  try {
    nf4_quantize(x);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(error.message().find("not finite"), std::string::npos);
  }
  EXPECT_THROW(nf4_quantize(at::randn({2, 64}), {true, 48}), Error);
  EXPECT_THROW(nf4_quantize(at::zeros({2, 64}, at::kLong)), Error);
}

}  // namespace
}  // namespace espalier
