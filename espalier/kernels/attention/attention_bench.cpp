// causal_attention with SmolLM2's heads: prefill, sliding window and a decoding step over a cache.
// Items/s is multiply-adds counted twice over the visible pairs; a step is bound by reading the
// cache once (bytes/s).
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "espalier/kernels/attention/attention.h"

namespace espalier {
namespace {

void attention(benchmark::State& state) {
  const c10::InferenceMode inference;
  const std::int64_t batch = state.range(0), tokens = state.range(1), positions = state.range(2),
                     window = state.range(3);
  const at::Tensor q = at::randn({batch, tokens, 9, 64}), k = at::randn({batch, 3, positions, 64}),
                   v = at::randn({batch, 3, positions, 64});
  for (auto _ : state) benchmark::DoNotOptimize(causal_attention(q, k, v, window));
  const std::int64_t pairs = tokens * positions - tokens * (tokens - 1) / 2;
  state.SetItemsProcessed(state.iterations() * batch * 9 * pairs * 64 * 4);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(k.nbytes() + v.nbytes()));
}

BENCHMARK(attention)
    ->Args({8, 128, 128, 0})
    ->Args({1, 1024, 1024, 0})
    ->Args({1, 1024, 1024, 256})
    ->Args({1, 1, 1024, 0})
    ->Args({1, 1, 4096, 0})
    ->UseRealTime();

}  // namespace
}  // namespace espalier
