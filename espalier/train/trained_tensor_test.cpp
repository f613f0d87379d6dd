// Leaves and masters; clipping equals torch.nn.utils.clip_grad_norm_ (numbers from
// tests/fixtures/make_train_numbers.py).
#include "espalier/train/trained_tensor.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

namespace espalier {
namespace {

TEST(TrainedTensor, Float32SharesItsMasterAndLeavesTheOriginalAlone) {
  const at::Tensor original = at::tensor({1.0f, 2.0f});
  at::Tensor slot = original;
  const TrainedTensor trained = make_trained("w", slot);
  EXPECT_TRUE(slot.is_same(trained.weight));
  EXPECT_TRUE(slot.requires_grad() && slot.is_leaf());
  trained.master.add_(1);
  EXPECT_TRUE(at::equal(slot.detach(), at::tensor({2.0f, 3.0f})));
  EXPECT_TRUE(at::equal(original, at::tensor({1.0f, 2.0f})));
  freeze({trained});
  EXPECT_FALSE(slot.requires_grad());
}

TEST(TrainedTensor, BFloat16KeepsAFullPrecisionMaster) {
  const at::Tensor full = at::tensor({1.0009765625f, 3.0f});  // 1 + 2^-10: not a bfloat16 number
  at::Tensor slot = full.to(at::kBFloat16);
  const TrainedTensor trained = make_trained("w", slot, full);
  EXPECT_TRUE(at::equal(trained.master, full));
  EXPECT_EQ(slot.scalar_type(), at::kBFloat16);
  trained.master.add_(0.01);
  refresh_weights({trained});
  EXPECT_TRUE(at::equal(slot.detach(), trained.master.to(at::kBFloat16)));
  EXPECT_EQ(count_elements({trained, trained}), 4);
}

TEST(Clip, EqualsTorch) {
  std::vector<at::Tensor> gradients{at::tensor({3.0f, 4.0f}).view({1, 2}), at::tensor({12.0f})};
  EXPECT_DOUBLE_EQ(clip_by_global_norm(gradients, 1.0), 13.0);
  EXPECT_NEAR(gradients[0][0][0].item<float>(), 0.230769217f, 1e-7);
  EXPECT_NEAR(gradients[0][0][1].item<float>(), 0.307692289f, 1e-7);
  EXPECT_NEAR(gradients[1][0].item<float>(), 0.923076868f, 1e-7);
}

TEST(TrainedTensor, KeepsChannelsLast) {
  at::Tensor slot = at::randn({4, 3, 2, 2}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor full = slot;
  slot = slot.to(at::kBFloat16);
  const TrainedTensor trained = make_trained("w", slot, full.contiguous());
  EXPECT_EQ(trained.weight.strides(), full.strides());
  EXPECT_EQ(trained.master.strides(), full.strides());
  EXPECT_TRUE(at::equal(trained.master, full));
  at::Tensor sparse = at::randn({6, 4}).slice(1, 0, 4, 2);
  EXPECT_TRUE(make_trained("w", sparse).weight.is_contiguous());
}

TEST(Clip, OnTheDeviceTheSame) {
  std::vector<at::Tensor> a{at::tensor({3.0f, 4.0f}), at::tensor({12.0f})}, b;
  for (const at::Tensor& t : a) b.push_back(t.clone());
  const at::Tensor norm = clip_on_device(a, 1.0);
  EXPECT_EQ(norm.scalar_type(), at::kDouble);
  EXPECT_DOUBLE_EQ(norm.item<double>(), clip_by_global_norm(b, 1.0));
  EXPECT_TRUE(at::equal(a[0], b[0]) && at::equal(a[1], b[1]));
  EXPECT_NEAR(clip_on_device(a, 5.0).item<double>(), 1.0, 1e-6);
  EXPECT_TRUE(at::equal(a[0], b[0]));
  clip_on_device(a, 0);
  EXPECT_TRUE(at::equal(a[1], b[1]));
}

TEST(Clip, SmallNormsAndZeroLimitChangeNothing) {
  std::vector<at::Tensor> gradients{at::tensor({0.3f, 0.4f})};
  EXPECT_NEAR(clip_by_global_norm(gradients, 1.0), 0.5, 1e-7);
  EXPECT_NEAR(clip_by_global_norm(gradients, 0.0), 0.5, 1e-7);
  EXPECT_TRUE(at::equal(gradients[0], at::tensor({0.3f, 0.4f})));
  EXPECT_EQ(global_norm({}), 0);
}

}  // namespace
}  // namespace espalier
