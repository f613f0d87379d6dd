// Forward and backward of q, k, v of SmolLM2 (576 -> 576, 192, 192) with adapters of rank 8: the
// group, the same layers one by one, and the composition that PEFT runs. Roofline: the three base
// products, forward and in x; items/s is their operations/s.
#include <benchmark/benchmark.h>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/nn/linear.h"

namespace espalier {
namespace {

struct Layers {
  explicit Layers(bool dora) {
    for (const std::int64_t out : {576, 192, 192}) {
      Linear layer;
      layer.weight = at::randn({out, 576});
      init_low_rank(layer, {.rank = 8, .alpha = 16, .dora = dora}, 0, "layer");
      LowRank& lora = *layer.adapter;
      lora.b.normal_(0, 0.1);
      for (at::Tensor* t : {&lora.a, &lora.b, &lora.magnitude}) {
        if (!t->defined()) continue;
        t->set_requires_grad(true);
        leaves.push_back(*t);
      }
      list.push_back(std::move(layer));
    }
    leaves.push_back(x);
  }
  std::vector<Linear> list;
  at::Tensor x = at::randn({1024, 576}).set_requires_grad(true);
  std::vector<at::Tensor> leaves;
};

template <class Forward>
void run(benchmark::State& state, bool dora, Forward forward) {
  const Layers layers(dora);
  const std::vector<at::Tensor> upstream{at::randn({1024, 576}), at::randn({1024, 192}),
                                         at::randn({1024, 192})};
  for (auto _ : state) {
    benchmark::DoNotOptimize(torch::autograd::grad(forward(layers), layers.leaves, upstream));
  }
  state.SetItemsProcessed(state.iterations() * 4 * 1024 * 576 * 960);
}

std::vector<at::Tensor> grouped(const Layers& l) {
  return linear_group(l.x, {&l.list[0], &l.list[1], &l.list[2]});
}
std::vector<at::Tensor> one_by_one(const Layers& l) {
  return {l.list[0](l.x), l.list[1](l.x), l.list[2](l.x)};
}
std::vector<at::Tensor> composed(const Layers& l) {
  std::vector<at::Tensor> out;
  for (const Linear& layer : l.list) {
    const LowRank& lora = *layer.adapter;
    out.push_back(at::linear(l.x, layer.weight) +
                  at::linear(at::linear(l.x, lora.a), lora.b) * lora.scale);
  }
  return out;
}

void lora_group(benchmark::State& state) { run(state, false, grouped); }
void lora_one_by_one(benchmark::State& state) { run(state, false, one_by_one); }
void lora_composed(benchmark::State& state) { run(state, false, composed); }
void dora_group(benchmark::State& state) { run(state, true, grouped); }

BENCHMARK(lora_group)->UseRealTime();
BENCHMARK(lora_one_by_one)->UseRealTime();
BENCHMARK(lora_composed)->UseRealTime();
BENCHMARK(dora_group)->UseRealTime();

}  // namespace
}  // namespace espalier
