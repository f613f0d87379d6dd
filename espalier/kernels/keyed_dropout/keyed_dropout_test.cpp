// Masks: equal to their definition, equal for equal keys only, of the right density, without
// visible structure.
#include "espalier/kernels/keyed_dropout/keyed_dropout.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace espalier {
namespace {

DropoutKey key(std::uint64_t seed, std::uint64_t stream, std::int64_t counter) {
  return {seed, stream, at::scalar_tensor(counter, at::kLong)};
}

at::Tensor mask(std::int64_t numel, double p, const DropoutKey& k) {
  return keyed_dropout(at::ones({numel}), p, k).ne(0);
}

TEST(KeyedDropout, EqualsItsDefinition) {
  const at::Tensor x = at::randn({37, 41});
  const DropoutKey k = key(3, 5, 7);
  const at::Tensor kept = keyed_mask_reference(x.numel(), 0.3, k).view(x.sizes());
  EXPECT_TRUE(keyed_dropout(x, 0.3, k).equal(at::where(kept, x * float(1 / 0.7), at::zeros({}))));
  const at::Tensor half = x.to(at::kBFloat16);
  const at::Tensor expected =
      at::where(kept, half.to(at::kFloat) * float(1 / 0.7), at::zeros({})).to(at::kBFloat16);
  EXPECT_TRUE(keyed_dropout(half, 0.3, k).equal(expected));
}

TEST(KeyedDropout, AddsInPlace) {
  const at::Tensor g = at::randn({64, 33}), y = at::randn({64, 33});
  const DropoutKey k = key(1, 2, 3);
  const at::Tensor sum = y.clone();
  keyed_dropout_add_(sum, g, 0.1, k);
  EXPECT_TRUE(sum.allclose(y + keyed_dropout(g, 0.1, k), 1e-6, 1e-6));
}

TEST(KeyedDropout, EveryPartOfTheKeyChangesTheMaskAndThreadsDoNot) {
  const std::int64_t n = 100'000;
  const at::Tensor base = mask(n, 0.5, key(1, 1, 1));
  EXPECT_TRUE(base.equal(mask(n, 0.5, key(1, 1, 1))));
  for (const DropoutKey& other : {key(2, 1, 1), key(1, 2, 1), key(1, 1, 2)}) {
    const double agree = base.eq(mask(n, 0.5, other)).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(agree, 0.5, 0.01);
  }
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  EXPECT_TRUE(base.equal(mask(n, 0.5, key(1, 1, 1))));
  at::set_num_threads(threads);
}

TEST(KeyedDropout, DensityIsRightAndNeighboursAreIndependent) {
  const std::int64_t n = 1 << 20;
  for (const double p : {0.05, 0.5, 0.9}) {
    const at::Tensor kept = mask(n, p, key(9, 8, 7)).to(at::kDouble);
    const double sigma = std::sqrt(p * (1 - p) / static_cast<double>(n));
    EXPECT_NEAR(kept.mean().item<double>(), 1 - p, 5 * sigma) << p;
    for (const std::int64_t lag : {1, 2, 64, 576, 65536}) {
      const double both =
          (kept.narrow(0, 0, n - lag) * kept.narrow(0, lag, n - lag)).mean().item<double>();
      EXPECT_NEAR(both, (1 - p) * (1 - p), 8 * sigma) << p << " lag " << lag;
    }
  }
}

TEST(KeyedDropout, MeanIsKeptAndZeroIsTheIdentity) {
  const at::Tensor x = at::ones({1 << 20});
  EXPECT_NEAR(keyed_dropout(x, 0.25, key(4, 4, 4)).mean().item<double>(), 1, 0.005);
  EXPECT_TRUE(keyed_dropout(x, 0, key(4, 4, 4)).equal(x));
}

}  // namespace
}  // namespace espalier
