// How close quantised products and dequantisation come to the speed of memory.
//   BM_Read            the roofline: how fast this machine reads bytes with all its threads
//   BM_Linear          quantized_linear; bytes_per_second counts the packed weights once
//   BM_DequantizeMatmul  what it replaces: dequantise everything, then a float product
//   BM_Dequantize, BM_Quantize  one thread; bytes_per_second counts packed bytes, items are
//   elements
#include <cstring>
#include <vector>

#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "espalier/base/random.h"
#include "espalier/kernels/gguf_quants/gguf_dot.h"
#include "espalier/kernels/gguf_quants/simd_internal.h"

namespace espalier {
namespace {

// A feed-forward matrix of an 8B model: larger than any cache in every type.
constexpr std::int64_t kIn = 4096, kOut = 14336;

std::vector<std::byte> random_weights(GgufType type, std::int64_t numel) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(gguf_bytes(type, numel)));
  RandomStream random(1);
  // 0x2c is the high byte of small float16 numbers; 0x3c of small float32 and bfloat16 numbers.
  const std::uint64_t calm = type == GgufType::kF32 || type == GgufType::kBF16
                                 ? 0x3c003c003c003c00ull
                                 : 0x2c002c002c002c00ull;
  for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const std::uint64_t value =
        (random.next() & 0x0fff0fff0fff0fffull & ~0xff00ff00ff00ff00ull) | calm;
    std::memcpy(bytes.data() + i, &value, 8);
  }
  return bytes;
}

std::vector<float> random_floats(std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  RandomStream random(2);
  for (float& value : values) value = static_cast<float>(random.uniform() - 0.5);
  return values;
}

void BM_Read(benchmark::State& state) {
  const std::vector<std::uint64_t> data(std::size_t{32} << 20, 1);
  for (auto _ : state) {
    std::vector<std::uint64_t> sums(64);
    at::parallel_for(0, static_cast<std::int64_t>(data.size()), 1 << 20,
                     [&](std::int64_t begin, std::int64_t end) {
                       std::uint64_t lanes[16] = {};
                       for (std::int64_t i = begin; i + 16 <= end; i += 16) {
                         for (int k = 0; k < 16; ++k)
                           lanes[k] += data[static_cast<std::size_t>(i + k)];
                       }
                       for (const std::uint64_t lane : lanes)
                         sums[static_cast<std::size_t>(at::get_thread_num()) % 64] += lane;
                     });
    benchmark::DoNotOptimize(sums);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(data.size() * 8));
}
BENCHMARK(BM_Read)->UseRealTime()->Unit(benchmark::kMillisecond);

void BM_Linear(benchmark::State& state, GgufType type) {
  const std::int64_t rows = state.range(0);
  const auto weights = random_weights(type, kOut * kIn);
  const auto x = random_floats(rows * kIn);
  std::vector<float> y(static_cast<std::size_t>(rows * kOut));
  for (auto _ : state) {
    quantized_linear(type, weights, kOut, kIn, x, rows, y);
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(weights.size()));
  state.SetItemsProcessed(state.iterations() * rows * kOut * kIn);
}

void BM_DequantizeMatmul(benchmark::State& state, GgufType type) {
  const std::int64_t rows = state.range(0);
  const auto weights = random_weights(type, kOut * kIn);
  const at::Tensor x = at::rand({rows, kIn});
  at::Tensor w = at::empty({kOut, kIn});
  for (auto _ : state) {
    dequantize(type, weights, std::span(w.data_ptr<float>(), static_cast<std::size_t>(kOut * kIn)));
    at::Tensor y = at::matmul(x, w.t());
    benchmark::DoNotOptimize(y.data_ptr<float>());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(weights.size()));
}

#define LINEAR(type)                                    \
  BENCHMARK_CAPTURE(BM_Linear, type, GgufType::k##type) \
      ->Arg(1)                                          \
      ->Arg(4)                                          \
      ->Arg(32)                                         \
      ->UseRealTime()                                   \
      ->Unit(benchmark::kMillisecond)
LINEAR(Q8_0);
LINEAR(Q4_0);
LINEAR(Q4_1);
LINEAR(Q5_0);
LINEAR(Q4_K);
LINEAR(Q5_K);
LINEAR(Q6_K);
LINEAR(F16);
LINEAR(BF16);
LINEAR(F32);
BENCHMARK_CAPTURE(BM_DequantizeMatmul, Q4_0, GgufType::kQ4_0)
    ->Arg(1)
    ->Arg(4)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

constexpr std::int64_t kChunk = 1 << 16;  // elements; stays in the second-level cache

void BM_Dequantize(benchmark::State& state, GgufType type, int set) {
  std::size_t sets = 0;
  const GgufSimd* const* all = gguf_simd_all(sets);
  if (set >= 0 && static_cast<std::size_t>(set) >= sets) {
    state.SkipWithError("this processor has no such instruction set");
    return;
  }
  const auto weights = random_weights(type, kChunk);
  std::vector<float> out(kChunk);
  if (set >= 0) state.SetLabel(all[set]->name);
  for (auto _ : state) {
    if (set < 0) {
      dequantize_reference(type, weights, out);
    } else {
      all[set]->dequantize(type, reinterpret_cast<const std::uint8_t*>(weights.data()),
                           static_cast<std::size_t>(kChunk / gguf_type_info(type).block),
                           out.data());
    }
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(weights.size()));
  state.SetItemsProcessed(state.iterations() * kChunk);
}
#define DEQUANTIZE(type)                                                     \
  BENCHMARK_CAPTURE(BM_Dequantize, type##_reference, GgufType::k##type, -1); \
  BENCHMARK_CAPTURE(BM_Dequantize, type##_best, GgufType::k##type, 0);       \
  BENCHMARK_CAPTURE(BM_Dequantize, type##_second, GgufType::k##type, 1)
DEQUANTIZE(Q8_0);
DEQUANTIZE(Q4_0);
DEQUANTIZE(Q4_1);
DEQUANTIZE(Q5_0);
DEQUANTIZE(Q4_K);
DEQUANTIZE(Q6_K);
DEQUANTIZE(F16);
DEQUANTIZE(BF16);

void BM_Quantize(benchmark::State& state, GgufType type) {
  const auto values = random_floats(kChunk);
  std::vector<std::byte> out(static_cast<std::size_t>(gguf_bytes(type, kChunk)));
  for (auto _ : state) {
    quantize(type, values, out);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(state.iterations() * kChunk);
}
BENCHMARK_CAPTURE(BM_Quantize, Q8_0, GgufType::kQ8_0);
BENCHMARK_CAPTURE(BM_Quantize, Q4_0, GgufType::kQ4_0);
BENCHMARK_CAPTURE(BM_Quantize, Q4_1, GgufType::kQ4_1);
BENCHMARK_CAPTURE(BM_Quantize, F16, GgufType::kF16);
BENCHMARK_CAPTURE(BM_Quantize, BF16, GgufType::kBF16);

}  // namespace
}  // namespace espalier
