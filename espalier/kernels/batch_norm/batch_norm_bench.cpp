// A step of batch norm, residual sum and ReLU, forward and backward, against ATen's operations one
// by one. Roofline: the 12 passes that batch_norm.h counts; bytes/s counts those.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/kernels/batch_norm/batch_norm.h"

namespace espalier {
namespace {

at::Tensor composed(const at::Tensor& x, const BatchNormTensors& norm, const at::Tensor& residual,
                    NormActivation) {
  at::Tensor y = at::batch_norm(x, norm.weight, norm.bias, norm.running_mean, norm.running_var,
                                true, norm.momentum, norm.eps, true);
  return y.add_(residual).relu_();
}

template <class Norm>
void run(benchmark::State& state, Norm op) {
  const std::int64_t channels = state.range(1), side = state.range(2);
  const auto type = state.range(3) != 0 ? at::kBFloat16 : at::kFloat;
  const auto random = [&] {
    return at::randn({state.range(0), channels, side, side})
        .to(type)
        .contiguous(at::MemoryFormat::ChannelsLast);
  };
  const at::Tensor x = random().requires_grad_(), residual = random().requires_grad_(),
                   g = random();
  const BatchNormTensors norm{.weight = at::rand({channels}).requires_grad_(),
                              .bias = at::rand({channels}).requires_grad_(),
                              .running_mean = at::zeros({channels}),
                              .running_var = at::ones({channels})};
  for (auto _ : state) {
    const at::Tensor y = op(x, norm, residual, NormActivation::kRelu);
    benchmark::DoNotOptimize(
        torch::autograd::grad({y}, {x, norm.weight, norm.bias, residual}, {g}));
  }
  state.SetBytesProcessed(state.iterations() * 12 * static_cast<std::int64_t>(x.nbytes()));
}

void ours(benchmark::State& state) { run(state, batch_norm_train); }
void aten_operations(benchmark::State& state) { run(state, composed); }

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t bf16 : {0, 1}) {
    b->Args({128, 16, 32, bf16});
    b->Args({128, 32, 16, bf16});
    b->Args({128, 64, 8, bf16});
  }
}
BENCHMARK(ours)->Apply(sizes)->UseRealTime();
BENCHMARK(aten_operations)->Apply(sizes)->UseRealTime();

}  // namespace
}  // namespace espalier
