// rms_norm against the best ATen composition and at::rms_norm. Roofline: x read and y written once;
// bytes/s counts both.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "espalier/kernels/rms_norm/rms_norm.h"

namespace espalier {
namespace {

at::Tensor composed(const at::Tensor& x, const at::Tensor& w, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  return w * (wide * at::rsqrt(at::mean(at::square(wide), {-1}, true) + eps)).to(x.scalar_type());
}

template <class Norm>
void run(benchmark::State& state, Norm norm) {
  const c10::InferenceMode inference;
  const auto type = state.range(2) != 0 ? at::kBFloat16 : at::kFloat;
  const at::Tensor x = at::randn({state.range(0), state.range(1)}).to(type),
                   w = at::randn({state.range(1)}).to(type);
  for (auto _ : state) benchmark::DoNotOptimize(norm(x, w));
  state.SetBytesProcessed(state.iterations() * 2 * static_cast<std::int64_t>(x.nbytes()));
}

void ours(benchmark::State& state) {
  run(state, [](const at::Tensor& x, const at::Tensor& w) { return rms_norm(x, w, 1e-5); });
}
void aten_composition(benchmark::State& state) {
  run(state, [](const at::Tensor& x, const at::Tensor& w) { return composed(x, w, 1e-5); });
}
void aten_rms_norm(benchmark::State& state) {
  run(state, [](const at::Tensor& x, const at::Tensor& w) {
    return at::rms_norm(x, {x.size(-1)}, w, 1e-5);
  });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t bf16 : {0, 1}) {
    for (const std::int64_t rows : {1, 1024}) b->Args({rows, 576, bf16});
    b->Args({1024, 4096, bf16});
  }
}
BENCHMARK(ours)->Apply(sizes)->UseRealTime();
BENCHMARK(aten_composition)->Apply(sizes)->UseRealTime();
BENCHMARK(aten_rms_norm)->Apply(sizes)->UseRealTime();

}  // namespace
}  // namespace espalier
