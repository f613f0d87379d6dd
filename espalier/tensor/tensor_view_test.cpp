// Views of foreign memory, shape checks, devices and generators.
#include "espalier/tensor/tensor_view.h"

#include <array>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

template <class Function>
Error error_of(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "did not throw";
  return Error(ErrorKind::kInternal, "", "");
}

TEST(ViewBytes, SharesMemoryAndKeepsItsOwner) {
  auto owner = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3, 4, 5, 6});
  const std::weak_ptr<std::vector<float>> alive = owner;
  at::Tensor tensor = view_bytes(std::as_bytes(std::span(*owner)), Dtype::kF32, {2, 3}, owner);
  (*owner)[4] = 50;
  EXPECT_EQ(tensor[1][1].item<float>(), 50);
  owner.reset();
  at::Tensor row = tensor[1];
  tensor = at::Tensor();
  EXPECT_FALSE(alive.expired());
  EXPECT_EQ(row[2].item<float>(), 6);
  row = at::Tensor();
  EXPECT_TRUE(alive.expired());
}

TEST(ViewBytes, MisalignedMemoryIsCopied) {
  auto owner = std::make_shared<std::array<std::byte, 9>>();
  const float value = 3.5f;
  std::memcpy(owner->data() + 1, &value, sizeof(value));
  const auto bytes = std::span<const std::byte>(*owner).subspan(1, 4);
  const at::Tensor tensor = view_bytes(bytes, Dtype::kF32, {1}, owner);
  EXPECT_EQ(tensor.item<float>(), 3.5f);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % sizeof(float), 0u);
}

TEST(ViewBytes, EmptyShapesAndScalars) {
  EXPECT_EQ(view_bytes({}, Dtype::kBF16, {0, 4}, nullptr).sizes(), at::IntArrayRef({0, 4}));
  auto owner = std::make_shared<std::int64_t>(7);
  const at::Tensor scalar =
      view_bytes(std::as_bytes(std::span(owner.get(), 1)), Dtype::kI64, {}, owner);
  EXPECT_EQ(scalar.dim(), 0);
  EXPECT_EQ(scalar.item<std::int64_t>(), 7);
}

TEST(ViewBytes, WrongByteCountIsOurBug) {
  auto owner = std::make_shared<std::array<std::byte, 10>>();
  const Error error = error_of([&] { view_bytes(*owner, Dtype::kF32, {3}, owner); });
  EXPECT_EQ(error.kind(), ErrorKind::kInternal);
  EXPECT_EQ(error.message(), "10 bytes for shape [3] of float32, which needs 12");
}

TEST(TensorBytes, AreTheElements) {
  const at::Tensor tensor = at::arange(4, at::kInt);
  const auto bytes = tensor_bytes(tensor);
  ASSERT_EQ(bytes.size(), 16u);
  EXPECT_EQ(std::to_integer<int>(bytes[4]), 1);
  EXPECT_THROW(tensor_bytes(at::zeros({2, 3}).t()), Error);
}

TEST(CheckShape, NamesBothShapes) {
  EXPECT_NO_THROW(check_shape(at::zeros({2, 3}), {2, 3}, "w"));
  EXPECT_NO_THROW(check_shape(at::zeros({2, 3}), {-1, 3}, "w"));
  const Error error = error_of([] { check_shape(at::zeros({2, 3}), {3, 2}, "model.norm.weight"); });
  EXPECT_EQ(error.kind(), ErrorKind::kInput);
  EXPECT_STREQ(error.what(), "model.norm.weight: has shape [2, 3], expected [3, 2]");
  EXPECT_THROW(check_shape(at::zeros({2, 3}), {2}, "w"), Error);
  EXPECT_EQ(shape_text({}), "[]");
}

TEST(ParseDevice, KnownNames) {
  EXPECT_TRUE(parse_device("cpu").is_cpu());
  EXPECT_EQ(parse_device("auto").is_cuda(), has_cuda());
}

TEST(ParseDevice, OtherTextIsUsageAndNamesTheChoices) {
  for (const char* text : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CPU", "cuda:999"}) {
    const Error error = error_of([&] { parse_device(text); });
    EXPECT_EQ(error.kind(), ErrorKind::kUsage) << text;
    EXPECT_NE(error.message().find("expected cpu, cuda, cuda:N or auto"), std::string::npos);
  }
}

TEST(ParseDevice, AbsentDeviceIsEnvironment) {
  if (has_cuda()) {
    EXPECT_EQ(error_of([] { parse_device("cuda:127"); }).kind(), ErrorKind::kEnvironment);
  } else {
    const Error error = error_of([] { parse_device("cuda"); });
    EXPECT_EQ(error.kind(), ErrorKind::kEnvironment);
    EXPECT_NE(error.hint_text().find("--device cpu"), std::string::npos);
  }
}

TEST(MakeGenerator, DependsOnEveryPartAndOnNothingElse) {
  const at::Device cpu(at::kCPU);
  const auto draw = [&](std::uint64_t seed, const char* name, std::int64_t rank,
                        std::int64_t step) {
    at::Generator generator = make_generator(seed, name, rank, step, cpu);
    return at::rand({4}, generator);
  };
  const at::Tensor first = draw(1, "dropout", 0, 0);
  at::rand({100});  // the global generator is a different one
  EXPECT_TRUE(at::equal(first, draw(1, "dropout", 0, 0)));
  EXPECT_FALSE(at::equal(first, draw(2, "dropout", 0, 0)));
  EXPECT_FALSE(at::equal(first, draw(1, "init", 0, 0)));
  EXPECT_FALSE(at::equal(first, draw(1, "dropout", 1, 0)));
  EXPECT_FALSE(at::equal(first, draw(1, "dropout", 0, 1)));
}

TEST(PeakDeviceBytes, IsZeroOnCpu) {
  EXPECT_EQ(peak_device_bytes(at::Device(at::kCPU)), 0);
  EXPECT_EQ(free_device_bytes(at::Device(at::kCPU)), 0);
  EXPECT_NO_THROW(synchronize(at::Device(at::kCPU)));
}

}  // namespace
}  // namespace espalier
