// A stream per thread on CUDA, nothing on the CPU.
#include "espalier/tensor/own_stream.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

TEST(OwnStream, DoesNothingOnTheCpu) {
  const OwnStream stream(at::kCPU);
  EXPECT_EQ(at::ones({3}).sum().item<float>(), 3);
}

TEST(OwnStream, IsTheCurrentOneUntilTheScopeEnds) {
  if (!has_cuda()) GTEST_SKIP() << "no CUDA device";
  const c10::impl::VirtualGuardImpl streams(at::kCUDA);
  const at::Device device(at::kCUDA, 0);
  const c10::Stream before = streams.getStream(device);
  at::Tensor sum;
  {
    const OwnStream first(device);
    const c10::Stream outer = streams.getStream(device);
    EXPECT_NE(outer, before);
    {
      const OwnStream second(device);
      EXPECT_NE(streams.getStream(device), outer);
    }
    EXPECT_EQ(streams.getStream(device), outer);
    sum = at::ones({1 << 20}, at::TensorOptions().device(device)).sum();
  }
  EXPECT_EQ(streams.getStream(device), before);
  EXPECT_EQ(sum.item<float>(), 1 << 20) << "its work has ended";
}

}  // namespace
}  // namespace espalier
