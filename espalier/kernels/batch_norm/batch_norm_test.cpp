// batch_norm_train against its definition in float64, ATen's operations and numbers computed by
// hand, on every device there is.
#include "espalier/kernels/batch_norm/batch_norm.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

// Statistics of n values err by a few units in the last place each, the result by a few more.
constexpr double kFloatTolerance = 2e-5;
// bfloat16 keeps 8 bits: a value may round to the neighbour of the reference's.
constexpr double kBf16Tolerance = 1.0 / 128;

std::vector<at::Device> devices() {
  std::vector<at::Device> all{at::kCPU};
  if (has_cuda()) all.emplace_back(at::kCUDA, 0);
  return all;
}

void expect_close(const at::Tensor& a, const at::Tensor& b, double tolerance, const char* what) {
  const at::Tensor x = a.to(at::kCPU, at::kDouble), y = b.to(at::kCPU, at::kDouble);
  EXPECT_TRUE(at::allclose(x, y, tolerance, tolerance))
      << what << " differs by " << (x - y).abs().max().item<double>();
}

struct Sample {
  at::Tensor x, residual, g;
  BatchNormTensors norm;
};

/// `shift`: how far the channels' means lie from 0.
Sample sample_of(at::IntArrayRef sizes, at::ScalarType type, bool with_residual, double shift) {
  const std::int64_t channels = sizes[1];
  Sample s;
  s.x = (at::randn(sizes) * (at::arange(channels).view({1, -1, 1, 1}) % 3 + 0.5) + shift)
            .to(type)
            .contiguous(at::MemoryFormat::ChannelsLast);
  if (with_residual)
    s.residual = at::randn(sizes).to(type).contiguous(at::MemoryFormat::ChannelsLast);
  s.g = at::randn(sizes).to(type).contiguous(at::MemoryFormat::ChannelsLast);
  s.norm.weight = at::rand({channels}) + 0.5;
  s.norm.bias = at::randn({channels});
  s.norm.running_mean = at::randn({channels});
  s.norm.running_var = at::rand({channels}) + 0.5;
  s.norm.counter = at::full({}, 41, at::kLong);
  return s;
}

Sample on_device(const Sample& s, at::Device device) {
  const auto moved = [&](const at::Tensor& t) { return t.defined() ? t.to(device) : t; };
  Sample out{moved(s.x), moved(s.residual), moved(s.g), s.norm};
  // A copy even on the CPU: the running statistics are written to.
  for (at::Tensor* t : {&out.norm.weight, &out.norm.bias, &out.norm.running_mean,
                        &out.norm.running_var, &out.norm.counter})
    *t = t->clone().to(device);
  return out;
}

struct Results {
  at::Tensor y;
  std::vector<at::Tensor> gradients;  // of x, weight, bias and the residual if there is one
};

template <class Op>
Results run(const Sample& s, NormActivation activation, at::ScalarType type, Op op) {
  Sample leaves = s;
  std::vector<at::Tensor> inputs;
  leaves.x = s.x.to(type).detach().requires_grad_();
  leaves.norm.weight = s.norm.weight.detach().clone().requires_grad_();
  leaves.norm.bias = s.norm.bias.detach().clone().requires_grad_();
  inputs = {leaves.x, leaves.norm.weight, leaves.norm.bias};
  if (s.residual.defined()) {
    leaves.residual = s.residual.to(type).detach().requires_grad_();
    inputs.push_back(leaves.residual);
  }
  const at::Tensor y = op(leaves.x, leaves.norm, leaves.residual, activation);
  return {y.detach(), torch::autograd::grad({y}, inputs, {s.g.to(y.scalar_type())})};
}

void compare(const Sample& s, NormActivation activation, at::Device device) {
  const at::ScalarType type = s.x.scalar_type();
  const Results exact = run(s, activation, at::kDouble, batch_norm_train_reference);
  const Sample there = on_device(s, device);
  const Results ours = run(there, activation, type, batch_norm_train);
  const double tolerance = type == at::kFloat ? kFloatTolerance : kBf16Tolerance;
  EXPECT_EQ(ours.y.scalar_type(), type);
  EXPECT_TRUE(ours.y.is_contiguous(at::MemoryFormat::ChannelsLast));
  expect_close(ours.y, exact.y, tolerance, "y");
  // Where y is 0 but for rounding the two may pass a gradient or not; sums see a few of those.
  const at::Tensor sure = exact.y.abs().gt(1e-2);
  const auto rows = static_cast<double>(s.x.numel() / s.x.size(1));
  const bool relu = activation == NormActivation::kRelu;
  const auto masked = [&](const at::Tensor& t) { return t.to(at::kCPU) * sure; };
  const double pointwise = type == at::kFloat ? 1e-3 : 3e-2;
  expect_close(masked(ours.gradients[0]), masked(exact.gradients[0]), pointwise, "dx");
  if (s.residual.defined())
    expect_close(masked(ours.gradients[3]), masked(exact.gradients[3]), tolerance, "dresidual");
  const double sums = (relu && type == at::kBFloat16 ? 5e-2 : tolerance * 10) * std::sqrt(rows);
  expect_close(ours.gradients[1], exact.gradients[1], sums, "dweight");
  expect_close(ours.gradients[2], exact.gradients[2], sums, "dbias");

  const at::Tensor wide = s.x.to(at::kDouble), mean = wide.mean(at::IntArrayRef{0, 2, 3});
  const at::Tensor variance = wide.var(at::IntArrayRef{0, 2, 3}, /*unbiased=*/true);
  expect_close(there.norm.running_mean, 0.9 * s.norm.running_mean + 0.1 * mean, kFloatTolerance,
               "running mean");
  expect_close(there.norm.running_var, 0.9 * s.norm.running_var + 0.1 * variance,
               kFloatTolerance * 5, "running variance");
  EXPECT_EQ(there.norm.counter.item<std::int64_t>(), 42);
}

class BatchNormTrain : public testing::TestWithParam<at::Device> {};

TEST_P(BatchNormTrain, HandComputed) {
  // Channel 0: 1, 3, mean 2, deviation 1. Channel 1: 5, -5, mean 0, deviation 5.
  const at::Tensor x =
      at::tensor({1.0f, 5.0f, 3.0f, -5.0f}).view({1, 2, 1, 2}).permute({0, 3, 1, 2}).to(GetParam());
  const auto f = at::TensorOptions().device(GetParam());
  BatchNormTensors norm{.weight = at::full({2}, 2.0, f), .bias = at::full({2}, 1.0, f)};
  norm.eps = 0;
  const at::Tensor residual = at::full({1, 2, 2, 1}, 0.5, f);
  const at::Tensor y = batch_norm_train(x, norm, residual, NormActivation::kRelu);
  // 2 * -1 + 1.5 = -0.5 -> 0; 2 + 1.5 = 3.5.
  const at::Tensor expected =
      at::tensor({0.0f, 3.5f, 3.5f, 0.0f}).view({1, 2, 1, 2}).permute({0, 3, 1, 2});
  expect_close(y, expected, 1e-6, "y");
  expect_close(batch_norm_train(x, norm, {}, NormActivation::kNone),
               at::tensor({-1.0f, 3.0f, 3.0f, -1.0f}).view({1, 2, 1, 2}).permute({0, 3, 1, 2}),
               1e-6, "y without more");
}

TEST_P(BatchNormTrain, EqualsTheDefinition) {
  at::manual_seed(3);
  // Channels: whole vectors, a rest, fewer than a vector; rows: one chunk, its end, several.
  const std::vector<std::vector<std::int64_t>> sizes{
      {2, 16, 3, 5}, {4, 64, 8, 8},  {3, 24, 7, 9},  {2, 1, 1, 7},  {5, 3, 11, 13},
      {2, 17, 1, 1}, {64, 16, 8, 8}, {1, 520, 5, 4}, {1, 7, 16, 16}};
  for (const auto& size : sizes) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      for (const bool residual : {false, true}) {
        for (const NormActivation activation : {NormActivation::kNone, NormActivation::kRelu}) {
          SCOPED_TRACE(testing::Message()
                       << at::IntArrayRef(size) << ' ' << type << " residual " << residual
                       << " relu " << (activation == NormActivation::kRelu));
          compare(sample_of(size, type, residual, 1.0), activation, GetParam());
        }
      }
    }
  }
}

TEST_P(BatchNormTrain, ALargeMeanCostsNoDigits) {
  at::manual_seed(4);
  const Sample s = on_device(sample_of({16, 16, 9, 9}, at::kFloat, false, 3000), GetParam());
  const at::Tensor y = batch_norm_train(s.x, s.norm, {}, NormActivation::kNone);
  // x itself is known to 2.4e-4 there, of a deviation of 0.5 or more.
  expect_close(y, batch_norm_train_reference(s.x, s.norm, {}, NormActivation::kNone), 2e-3, "y");
}

TEST_P(BatchNormTrain, OtherLayoutsGiveTheSame) {
  at::manual_seed(5);
  const Sample s = on_device(sample_of({3, 16, 6, 5}, at::kFloat, true, 0), GetParam());
  const Results ours = run(s, NormActivation::kRelu, at::kFloat, batch_norm_train);
  Sample planes = s;
  planes.x = s.x.contiguous();
  const Results composed = run(planes, NormActivation::kRelu, at::kFloat, batch_norm_train);
  expect_close(ours.y, composed.y, kFloatTolerance, "y of planes");
  for (std::size_t i = 0; i < ours.gradients.size(); ++i)
    expect_close(ours.gradients[i], composed.gradients[i], 1e-3, "a gradient of planes");
  Sample mixed = s;
  mixed.residual = s.residual.contiguous();
  mixed.g = s.g.contiguous();
  const Results same = run(mixed, NormActivation::kRelu, at::kFloat, batch_norm_train);
  EXPECT_TRUE(at::equal(same.y, ours.y));
  EXPECT_TRUE(at::equal(same.gradients[0], ours.gradients[0]));
  // A slice of channels' memory that no 16-byte access may touch.
  Sample shifted = s;
  const at::Tensor longer = at::zeros({s.x.numel() + 1}, s.x.options().memory_format({}));
  shifted.x = longer.narrow(0, 1, s.x.numel())
                  .view({3, 6, 5, 16})
                  .copy_(s.x.permute({0, 2, 3, 1}))
                  .permute({0, 3, 1, 2});
  ASSERT_TRUE(shifted.x.is_contiguous(at::MemoryFormat::ChannelsLast));
  expect_close(batch_norm_train(shifted.x, s.norm, s.residual, NormActivation::kRelu), ours.y,
               kFloatTolerance, "y of a shifted tensor");
}

TEST_P(BatchNormTrain, IsTheSameEveryTime) {
  at::manual_seed(6);
  const Sample s = on_device(sample_of({32, 16, 16, 16}, at::kFloat, true, 0), GetParam());
  const Results first = run(s, NormActivation::kRelu, at::kFloat, batch_norm_train);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Results second = run(s, NormActivation::kRelu, at::kFloat, batch_norm_train);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(first.y, second.y));
  for (std::size_t i = 0; i < first.gradients.size(); ++i)
    EXPECT_TRUE(at::equal(first.gradients[i], second.gradients[i])) << i;
}

TEST_P(BatchNormTrain, NanIsSeen) {
  Sample s = on_device(sample_of({2, 16, 3, 3}, at::kFloat, false, 0), GetParam());
  s.x.select(1, 5).fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor y = batch_norm_train(s.x, s.norm, {}, NormActivation::kRelu);
  EXPECT_TRUE(y.select(1, 5).isnan().all().item<bool>());
  EXPECT_EQ(y.isnan().sum().item<std::int64_t>(), 18);
}

TEST_P(BatchNormTrain, WithoutStatisticsToKeepAndFrozenWeights) {
  Sample s = on_device(sample_of({2, 16, 3, 3}, at::kFloat, true, 0), GetParam());
  s.norm.running_mean = s.norm.running_var = s.norm.counter = at::Tensor();
  const at::Tensor x = s.x.detach().requires_grad_();
  const at::Tensor y = batch_norm_train(x, s.norm, s.residual, NormActivation::kNone);
  EXPECT_TRUE(torch::autograd::grad({y}, {x}, {s.g})[0].defined());
}

INSTANTIATE_TEST_SUITE_P(Devices, BatchNormTrain, testing::ValuesIn(devices()),
                         [](const auto& device) {
                           return device.param.is_cuda() ? "Cuda" : "Cpu";
                         });

TEST(BatchNormTrainInput, OneValuePerChannelIsRefused) {
  const BatchNormTensors norm{.weight = at::ones({4}), .bias = at::zeros({4})};
  try {
    batch_norm_train(at::ones({1, 4, 1, 1}), norm, {}, NormActivation::kNone);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_STREQ(
        error.what(),
        "batch norm: a batch of one value per channel has no statistics to normalise with");
    EXPECT_EQ(error.hint_text(), "use a larger --batch-size, or larger images");
  }
  EXPECT_THROW(batch_norm_train(at::ones({2, 3, 2, 2}), norm, {}, NormActivation::kNone), Error);
}

}  // namespace
}  // namespace espalier
