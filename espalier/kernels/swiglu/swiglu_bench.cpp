// silu(gate) * up in place against the ATen composition. Roofline: two reads and one write; bytes/s
// counts three.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "espalier/kernels/swiglu/swiglu.h"

namespace espalier {
namespace {

template <class Gate>
void run(benchmark::State& state, Gate gate) {
  const c10::InferenceMode inference;
  const auto type = state.range(1) != 0 ? at::kBFloat16 : at::kFloat;
  const at::Tensor g = at::randn({state.range(0), 1536}).to(type),
                   up = at::ones({state.range(0), 1536}).to(type);
  for (auto _ : state) benchmark::DoNotOptimize(gate(g, up));
  state.SetBytesProcessed(state.iterations() * 3 * static_cast<std::int64_t>(g.nbytes()));
}

void ours(benchmark::State& state) { run(state, silu_mul_); }
void aten_composition(benchmark::State& state) { run(state, silu_mul_reference); }

BENCHMARK(ours)->ArgsProduct({{1, 1024}, {0, 1}})->UseRealTime();
BENCHMARK(aten_composition)->ArgsProduct({{1, 1024}, {0, 1}})->UseRealTime();

}  // namespace
}  // namespace espalier
