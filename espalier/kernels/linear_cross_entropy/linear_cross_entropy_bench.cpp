// The head of a 135M model (576 -> 49,152) with its loss: fused against whole logits through ATen,
// forward alone and with backward. Roofline: the products alone; items/s is their operations/s.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace espalier {
namespace {

constexpr std::int64_t kWidth = 576, kVocab = 49152;

void count(benchmark::State& state, std::int64_t products) {
  state.SetItemsProcessed(state.iterations() * products * 2 * state.range(0) * kWidth * kVocab);
}

void fused_nll(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor h = at::randn({state.range(0), kWidth}), w = at::randn({kVocab, kWidth}),
                   t = at::randint(kVocab, {state.range(0)}, at::kLong);
  for (auto _ : state) benchmark::DoNotOptimize(linear_nll(h, w, t));
  count(state, 1);
}
void aten_nll(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor h = at::randn({state.range(0), kWidth}), w = at::randn({kVocab, kWidth}),
                   t = at::randint(kVocab, {state.range(0)}, at::kLong);
  for (auto _ : state)
    benchmark::DoNotOptimize(at::cross_entropy_loss(at::linear(h, w), t, {}, at::Reduction::None));
  count(state, 1);
}
template <class Loss>
void train(benchmark::State& state, Loss loss) {
  const at::Tensor h = at::randn({state.range(0), kWidth}).requires_grad_(),
                   w = at::randn({kVocab, kWidth}).requires_grad_();
  const at::Tensor t = at::randint(kVocab, {state.range(0)}, at::kLong);
  for (auto _ : state) benchmark::DoNotOptimize(torch::autograd::grad({loss(h, w, t)}, {h, w}));
  count(state, 3);
}
void fused_backward(benchmark::State& state) {
  train(state, [](const at::Tensor& h, const at::Tensor& w, const at::Tensor& t) {
    return linear_cross_entropy(h, w, t, 1.0 / static_cast<double>(t.size(0)));
  });
}
void aten_backward(benchmark::State& state) {
  train(state, [](const at::Tensor& h, const at::Tensor& w, const at::Tensor& t) {
    return at::cross_entropy_loss(at::linear(h, w), t);
  });
}

BENCHMARK(fused_nll)->Arg(128)->Arg(1024)->UseRealTime();
BENCHMARK(aten_nll)->Arg(128)->Arg(1024)->UseRealTime();
BENCHMARK(fused_backward)->Arg(1024)->UseRealTime();
BENCHMARK(aten_backward)->Arg(1024)->UseRealTime();

}  // namespace
}  // namespace espalier
