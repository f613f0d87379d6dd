// Batch norm by hand: statistics, their update, the dtype of activations, what follows the norm.
#include "espalier/nn/batch_norm.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/nn/conv2d.h"

namespace espalier {
namespace {

BatchNorm norm_of_two() {
  return {.weight = at::tensor({2.0f, 1.0f}),
          .bias = at::tensor({0.0f, -1.0f}),
          .running_mean = at::tensor({1.0f, 0.0f}),
          .running_var = at::tensor({4.0f, 1.0f}),
          .num_batches_tracked = at::scalar_tensor(3, at::kLong),
          .eps = 0};
}

/// [2, 2, 1, 2]: channel 0 holds 1, 3, 5, 7; channel 1 holds 0, 0, 2, 2.
at::Tensor image() {
  return at::tensor({1.0f, 3.0f, 0.0f, 0.0f, 5.0f, 7.0f, 2.0f, 2.0f}).reshape({2, 2, 1, 2});
}

TEST(BatchNormTest, RunningStatisticsNormalise) {
  const BatchNorm norm = norm_of_two();
  // (x - 1) / 2 * 2 and x - 1
  EXPECT_TRUE(batch_norm(image(), norm, NormMode::kRunning)
                  .equal(at::tensor({0.0f, 2.0f, -1.0f, -1.0f, 4.0f, 6.0f, 1.0f, 1.0f})
                             .reshape({2, 2, 1, 2})));
  EXPECT_TRUE(norm.running_mean.equal(at::tensor({1.0f, 0.0f})));
  EXPECT_EQ(norm.num_batches_tracked.item<std::int64_t>(), 3);
}

TEST(BatchNormTest, BatchStatisticsNormaliseAndMoveTheRunningOnes) {
  const BatchNorm norm = norm_of_two();
  const at::Tensor y = batch_norm(image(), norm, NormMode::kBatch);
  // Channel 0: mean 4, variance 5; channel 1: mean 1, variance 1.
  const float s = 2 / std::sqrt(5.0f);
  EXPECT_TRUE(y.allclose(
      at::tensor({-3 * s, -s, -2.0f, -2.0f, s, 3 * s, 0.0f, 0.0f}).reshape({2, 2, 1, 2})));
  EXPECT_TRUE(norm.running_mean.allclose(at::tensor({1.3f, 0.1f})));
  // Unbiased variances 20/3 and 4/3.
  EXPECT_TRUE(norm.running_var.allclose(at::tensor({3.6f + 2.0f / 3, 0.9f + 0.4f / 3})));
  EXPECT_EQ(norm.num_batches_tracked.item<std::int64_t>(), 4);
}

TEST(BatchNormTest, ReluAndResidualFollow) {
  const at::Tensor residual = at::full({2, 2, 1, 2}, -1.5f);
  for (const NormMode mode : {NormMode::kRunning, NormMode::kBatch}) {
    const at::Tensor plain = batch_norm(image(), norm_of_two(), mode);
    EXPECT_TRUE(batch_norm_relu(image(), norm_of_two(), mode).equal(plain.relu()));
    EXPECT_TRUE(
        batch_norm_relu(image(), norm_of_two(), mode, residual).equal((plain + residual).relu()));
  }
}

TEST(BatchNormTest, Bfloat16ActivationsKeepFloatStatistics) {
  for (const NormMode mode : {NormMode::kRunning, NormMode::kBatch}) {
    const BatchNorm norm = norm_of_two(), exact = norm_of_two();
    const at::Tensor x = image().to(at::kBFloat16).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor y = batch_norm(x, norm, mode);
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
    EXPECT_TRUE(y.to(at::kFloat).allclose(batch_norm(image(), exact, mode), 1.0 / 128, 1.0 / 128));
    EXPECT_TRUE(norm.running_var.allclose(exact.running_var));
  }
}

TEST(BatchNormTest, GradientsAreTorchs) {
  // Against autograd through the formula written out.
  BatchNorm norm = norm_of_two();
  norm.weight.set_requires_grad(true);
  const at::Tensor x = image().set_requires_grad(true), x2 = image().set_requires_grad(true);
  const at::Tensor pattern = at::arange(8, at::kFloat).reshape({2, 2, 1, 2});
  (batch_norm_relu(x, norm, NormMode::kBatch) * pattern).sum().backward();
  const at::Tensor weight = at::tensor({2.0f, 1.0f}).set_requires_grad(true);
  const at::Tensor centred = x2 - x2.mean(at::IntArrayRef{0, 2, 3}, true);
  const at::Tensor variance = centred.square().mean(at::IntArrayRef{0, 2, 3}, true);
  const at::Tensor scale = weight.reshape({1, 2, 1, 1}), shift = norm.bias.reshape({1, 2, 1, 1});
  ((centred / variance.sqrt() * scale + shift).relu() * pattern).sum().backward();
  EXPECT_TRUE(x.grad().allclose(x2.grad(), 1e-4, 1e-5));
  EXPECT_TRUE(norm.weight.grad().allclose(weight.grad(), 1e-4, 1e-5));
}

TEST(Conv2dTest, StridePaddingBiasAndDtype) {
  Conv2d conv{
      .weight = at::ones({1, 1, 3, 3}), .bias = at::tensor({0.5f}), .stride = 2, .padding = 1};
  conv.weight.set_requires_grad(true);
  const at::Tensor x = at::arange(9, at::kFloat).reshape({1, 1, 3, 3});
  // Corners of 0..8: each sees a 2 x 2 corner of the image.
  EXPECT_TRUE(conv(x).equal(at::tensor({8.5f, 12.5f, 20.5f, 24.5f}).reshape({1, 1, 2, 2})));
  const at::Tensor y = conv(x.to(at::kBFloat16));
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  y.sum().backward();
  EXPECT_EQ(conv.weight.grad().scalar_type(), at::kFloat);
  EXPECT_EQ(conv.weight.grad().select(2, 1).select(2, 1).item<float>(), 16);  // 0 + 2 + 6 + 8
}

}  // namespace
}  // namespace espalier
