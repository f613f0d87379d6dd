// rope in place against the ATen composition. Roofline: x read and written once; bytes/s counts
// both.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "espalier/kernels/rope/rope.h"

namespace espalier {
namespace {

template <class Rope>
void run(benchmark::State& state, Rope rope) {
  const c10::InferenceMode inference;
  const auto type = state.range(1) != 0 ? at::kBFloat16 : at::kFloat;
  const at::Tensor x = at::randn({8, state.range(0), 9, 64}).to(type);
  const at::Tensor angles = at::randn({state.range(0), 64});
  const at::Tensor cos = at::cos(angles).to(type), sin = at::sin(angles).to(type);
  for (auto _ : state) benchmark::DoNotOptimize(rope(x, cos, sin));
  state.SetBytesProcessed(state.iterations() * 2 * static_cast<std::int64_t>(x.nbytes()));
}

void ours(benchmark::State& state) { run(state, rope_); }
void aten_composition(benchmark::State& state) { run(state, rope_reference); }

BENCHMARK(ours)->ArgsProduct({{1, 128}, {0, 1}})->UseRealTime();
BENCHMARK(aten_composition)->ArgsProduct({{1, 128}, {0, 1}})->UseRealTime();

}  // namespace
}  // namespace espalier
