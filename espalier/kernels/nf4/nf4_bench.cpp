// NF4 at SmolLM2's and an 8B model's shapes. Roofline of dequantising: half a byte and a scale read
// per element, four (float32) or two (bfloat16) written; bytes/s counts both. The product's peer is
// the same product with the plain weight.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "espalier/kernels/matmul/matmul.h"
#include "espalier/kernels/nf4/nf4.h"

namespace espalier {
namespace {

void dequantise(benchmark::State& state) {
  const c10::InferenceMode inference;
  const auto type = state.range(2) != 0 ? at::kBFloat16 : at::kFloat;
  const Nf4Weight w = nf4_quantize(at::randn({state.range(0), state.range(1)}));
  at::Tensor out;
  for (auto _ : state) benchmark::DoNotOptimize(out = nf4_dequantize(w, type));
  state.SetBytesProcessed(state.iterations() *
                          static_cast<std::int64_t>(out.nbytes() + w.packed.nbytes()));
}

void quantise(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor x = at::randn({state.range(0), state.range(1)});
  for (auto _ : state) benchmark::DoNotOptimize(nf4_quantize(x));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(x.nbytes()));
}

void product(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor x = at::randn({state.range(2), state.range(1)});
  const Nf4Weight w = nf4_quantize(at::randn({state.range(0), state.range(1)}));
  for (auto _ : state) benchmark::DoNotOptimize(nf4_matmul_nt(x, w));
  state.SetItemsProcessed(state.iterations() * 2 * x.numel() * state.range(0));
}

void plain_product(benchmark::State& state) {
  const c10::InferenceMode inference;
  const at::Tensor x = at::randn({state.range(2), state.range(1)}),
                   w = at::randn({state.range(0), state.range(1)});
  for (auto _ : state) benchmark::DoNotOptimize(matmul_nt(x, w));
  state.SetItemsProcessed(state.iterations() * 2 * x.numel() * state.range(0));
}

BENCHMARK(dequantise)->Args({1536, 576, 0})->Args({1536, 576, 1})->Args({4096, 4096, 1});
BENCHMARK(quantise)->Args({1536, 576})->Args({4096, 4096});
BENCHMARK(product)->Args({1536, 576, 1024})->Args({4096, 4096, 256})->Args({4096, 4096, 8});
BENCHMARK(plain_product)->Args({1536, 576, 1024})->Args({4096, 4096, 256})->Args({4096, 4096, 8});

}  // namespace
}  // namespace espalier
