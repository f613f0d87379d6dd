// Checks and choice of backend for keyed_dropout, and its definition.
#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/kernels/cuda_internal.h"
#include "espalier/kernels/keyed_dropout/kernels_internal.h"
#include "espalier/kernels/keyed_dropout/keyed_dropout.h"

namespace espalier {
namespace {

constexpr std::int64_t kGrainElements = 16384;

void run(const at::Tensor& x, const at::Tensor& y, bool add, double p, const DropoutKey& key) {
  ESPALIER_ASSERT(p >= 0 && p < 1 && key.counter.defined() && key.counter.numel() == 1 &&
                  key.counter.scalar_type() == at::kLong);
  ESPALIER_ASSERT(x.is_contiguous() && y.is_contiguous() && x.sizes() == y.sizes() &&
                  x.scalar_type() == y.scalar_type() && key.counter.device() == x.device());
  DropoutParams params;
  params.x = x.const_data_ptr();
  params.y = y.mutable_data_ptr();
  params.seed = key.seed;
  params.stream = key.stream;
  params.counter = key.counter.const_data_ptr<std::int64_t>();
  params.threshold = drop_threshold(p);
  params.scale = static_cast<float>(1.0 / (1.0 - p));
  params.bf16 = x.scalar_type() == at::kBFloat16;
  params.add = add;
  ESPALIER_ASSERT(params.bf16 || x.scalar_type() == at::kFloat);
  if (x.device().is_cpu()) {
    at::parallel_for(0, x.numel(), kGrainElements, [&](std::int64_t first, std::int64_t last) {
      keyed_dropout_cpu(params, first, last);
    });
    return;
  }
  if (!x.device().is_cuda() || !cuda_kernels_built()) {
    throw Error(ErrorKind::kEnvironment, "dropout",
                "this build has no kernel for " + x.device().str());
  }
  run_on_current_stream(x.device(),
                        [&](void* stream) { launch_keyed_dropout(params, x.numel(), stream); });
}

}  // namespace

at::Tensor keyed_dropout(const at::Tensor& x, double p, const DropoutKey& key) {
  const at::Tensor from = x.contiguous();
  at::Tensor y = at::empty_like(from);
  run(from, y, false, p, key);
  return y;
}

void keyed_dropout_add_(const at::Tensor& y, const at::Tensor& g, double p, const DropoutKey& key) {
  run(g.contiguous(), y, true, p, key);
}

at::Tensor keyed_mask_reference(std::int64_t numel, double p, const DropoutKey& key) {
  const auto counter = static_cast<std::uint64_t>(key.counter.item<std::int64_t>());
  at::Tensor mask = at::empty({numel}, at::kBool);
  for (std::int64_t i = 0; i < numel; ++i) {
    mask.data_ptr<bool>()[i] = element_hash(mask_key(key.seed, key.stream, counter),
                                            static_cast<std::uint64_t>(i)) >= drop_threshold(p);
  }
  return mask;
}

#ifndef ESPALIER_CUDA
// Linked, never reached: dispatch asks cuda_kernels_built() first.
void launch_keyed_dropout(const DropoutParams&, std::int64_t, void*) {
  ESPALIER_ASSERT(cuda_kernels_built());
}
#endif

}  // namespace espalier
