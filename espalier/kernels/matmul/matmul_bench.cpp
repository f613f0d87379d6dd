// y = x W^T of SmolLM2's shapes: matmul_nt (the back end of this machine), at::linear (MKL), and a
// decoding step. Roofline: two 512-bit multiply-adds per cycle and core, 64 float32 operations;
// items/s is operations/s.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "espalier/kernels/matmul/matmul.h"

namespace espalier {
namespace {

void shapes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t rows : {1, 8, 128, 1024}) {
    b->Args({rows, 576, 1536});
    b->Args({rows, 1536, 576});
    b->Args({rows, 576, 576});
  }
  b->Args({512, 576, 4096});  // a tile of the head
}

template <class Product>
void run(benchmark::State& state, at::ScalarType type, Product product) {
  const c10::InferenceMode inference;
  const std::int64_t rows = state.range(0), in = state.range(1), out = state.range(2);
  const at::Tensor x = at::randn({rows, in}).to(type), w = at::randn({out, in}).to(type);
  for (auto _ : state) benchmark::DoNotOptimize(product(x, w));
  state.SetItemsProcessed(state.iterations() * 2 * rows * in * out);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(w.nbytes()));
}

void ours(benchmark::State& state) {
  run(state, at::kFloat, [](const at::Tensor& x, const at::Tensor& w) { return matmul_nt(x, w); });
}
void aten(benchmark::State& state) {
  run(state, at::kFloat, [](const at::Tensor& x, const at::Tensor& w) { return at::linear(x, w); });
}
void ours_bf16(benchmark::State& state) {
  run(state, at::kBFloat16,
      [](const at::Tensor& x, const at::Tensor& w) { return matmul_nt(x, w); });
}
void aten_bf16(benchmark::State& state) {
  run(state, at::kBFloat16,
      [](const at::Tensor& x, const at::Tensor& w) { return at::linear(x, w); });
}
/// The gradient in the weight, [out, in].
void ours_weight_gradient(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor g = at::randn({state.range(0), state.range(2)}),
                   x = at::randn({state.range(0), state.range(1)});
  for (auto _ : state) benchmark::DoNotOptimize(matmul_tn(g, x));
  state.SetItemsProcessed(state.iterations() * 2 * g.numel() * x.size(1));
}
void aten_weight_gradient(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor g = at::randn({state.range(0), state.range(2)}),
                   x = at::randn({state.range(0), state.range(1)});
  for (auto _ : state) benchmark::DoNotOptimize(at::matmul(g.t(), x));
  state.SetItemsProcessed(state.iterations() * 2 * g.numel() * x.size(1));
}

BENCHMARK(ours)->Apply(shapes)->UseRealTime();
BENCHMARK(aten)->Apply(shapes)->UseRealTime();
BENCHMARK(ours_bf16)->Apply(shapes)->UseRealTime();
BENCHMARK(aten_bf16)->Apply(shapes)->UseRealTime();
BENCHMARK(ours_weight_gradient)->Args({1024, 576, 1536})->Args({512, 576, 4096})->UseRealTime();
BENCHMARK(aten_weight_gradient)->Args({1024, 576, 1536})->Args({512, 576, 4096})->UseRealTime();

}  // namespace
}  // namespace espalier
