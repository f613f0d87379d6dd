// Block by block against one autograd graph over all layers, for resident and streamed models, own
// leaves and own ways to run a layer; and the memory it takes, counted.
#include "espalier/models/decoder/blockwise_backward.h"

#include <map>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/support/counting_allocator.h"
#include "tests/support/random_decoder.h"

namespace espalier {
namespace {

using testing_support::CountingAllocator;
using testing_support::random_decoder;
using testing_support::RandomCheckpoint;
using testing_support::tiny_config;

at::Tensor some_ids(std::int64_t rows, std::int64_t tokens) {
  return at::arange(rows * tokens, at::kLong).mul(7).remainder(300).view({rows, tokens});
}

/// Gradients of sum(out * weights) by one graph: names as in the model, and the input's under "h".
std::map<std::string, at::Tensor> whole_graph(Decoder model, const at::Tensor& h,
                                              const at::Tensor& weights) {
  std::vector<std::string> names;
  std::vector<at::Tensor> variables;
  std::vector<at::Tensor*> slots;
  for (std::int64_t layer = 0; layer < model.num_layers(); ++layer) {
    for_each_tensor(model.block(layer), std::to_string(layer),
                    [&](const std::string& name, at::Tensor& tensor) {
                      tensor = tensor.detach().requires_grad_(true);
                      names.push_back(name);
                      variables.push_back(tensor);
                      slots.push_back(&tensor);
                    });
  }
  const at::Tensor input = h.detach().requires_grad_(true);
  variables.push_back(input);
  names.emplace_back("h");
  const at::Tensor out = model.run_layers(input, 0, model.num_layers(), model.context(h.size(1)));
  const auto grads = torch::autograd::grad({(out * weights).sum()}, variables);
  std::map<std::string, at::Tensor> result;
  for (std::size_t i = 0; i < names.size(); ++i) result[names[i]] = grads[i];
  for (at::Tensor* slot : slots) *slot = slot->detach();
  return result;
}

std::map<std::string, at::Tensor> blockwise(const Decoder& model, const at::Tensor& h,
                                            const at::Tensor& weights) {
  BlockwisePass pass(model, 0, model.num_layers(), model.context(h.size(1)));
  const at::Tensor out = pass.forward(h);
  EXPECT_FALSE(out.requires_grad());
  std::map<std::string, at::Tensor> result;
  std::vector<std::int64_t> order;
  result["h"] = pass.backward(weights, [&](std::int64_t layer, const auto& leaves, auto& grads) {
    order.push_back(layer);
    ASSERT_EQ(leaves.size(), grads.size());
    for (std::size_t i = 0; i < leaves.size(); ++i)
      result[std::to_string(layer) + "." + leaves[i].name] = grads[i];
  });
  EXPECT_EQ(order, (std::vector<std::int64_t>{3, 2, 1, 0}));
  return result;
}

TEST(BlockwisePass, GradientsAreThoseOfOneGraph) {
  const auto checkpoint = std::make_shared<RandomCheckpoint>(tiny_config());
  const at::Tensor ids = some_ids(3, 12);
  for (const Residency residency : {Residency::kResident, Residency::kStreamed}) {
    const Decoder model = Decoder::load(checkpoint, at::kFloat, at::kCPU, residency);
    const at::Tensor h = model.embed(ids), weights = at::randn_like(h);
    const auto expected = whole_graph(Decoder::load(checkpoint, at::kFloat, at::kCPU), h, weights);
    const auto found = blockwise(model, h, weights);
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, gradient] : expected) {
      ASSERT_TRUE(found.contains(name)) << name;
      const double error = (found.at(name) - gradient).abs().max().item<double>();
      EXPECT_LT(error, 1e-5 * gradient.abs().max().item<double>()) << name;
      EXPECT_GT(gradient.abs().max().item<float>(), 0) << name << " tests nothing";
    }
  }
}

TEST(BlockwisePass, ModelTensorsStayWithoutGradients) {
  Decoder model = random_decoder(tiny_config());
  const at::Tensor h = model.embed(some_ids(1, 8));
  blockwise(model, h, at::ones_like(h));
  model.for_each_parameter([](const std::string& name, at::Tensor& tensor) {
    EXPECT_FALSE(tensor.requires_grad()) << name;
    EXPECT_FALSE(tensor.grad().defined()) << name;
  });
}

TEST(BlockwisePass, ChosenLeavesAndNoInputGradient) {
  Decoder model = random_decoder(tiny_config());
  const at::Tensor h = model.embed(some_ids(2, 8)), weights = at::randn_like(h);
  const auto expected = whole_graph(model, h, weights);
  at::Tensor& trained = model.block(2).mlp.up_proj.weight;
  trained = trained.detach().requires_grad_(true);
  BlockwiseHooks hooks;
  hooks.leaves = [&](std::int64_t layer) {
    return layer == 2 ? std::vector<BlockLeaf>{{"up", trained}} : std::vector<BlockLeaf>{};
  };
  BlockwisePass pass(model, 1, 4, model.context(8), hooks);
  pass.forward(model.run_layers(h, 0, 1, model.context(8)));
  int calls = 0;
  const at::Tensor below = pass.backward(
      weights,
      [&](std::int64_t layer, const auto& leaves, auto& grads) {
        ++calls;
        EXPECT_EQ(layer, 2);
        EXPECT_EQ(leaves[0].name, "up");
        EXPECT_TRUE(at::allclose(grads[0], expected.at("2.mlp.up_proj.weight"), 1e-4, 1e-5));
      },
      InputGradient::kNo);
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(below.defined());
}

TEST(BlockwisePass, LayersMayRunInTheirOwnWay) {
  const Decoder model = random_decoder(tiny_config());
  const AttentionContext context = model.context(8);
  const at::Tensor gain = at::full({}, 2.0f).requires_grad_(true);
  BlockwiseHooks hooks;
  hooks.run = [&](const at::Tensor& h, std::int64_t layer) {
    return model.run_layer(h, layer, context) * gain;
  };
  hooks.leaves = [&](std::int64_t) { return std::vector<BlockLeaf>{{"gain", gain}}; };
  const at::Tensor h = model.embed(some_ids(1, 8));
  BlockwisePass pass(model, 0, 2, context, hooks);
  const at::Tensor out = pass.forward(h);
  std::vector<double> found;
  pass.backward(at::ones_like(out), [&](std::int64_t, const auto&, auto& grads) {
    found.push_back(grads[0].template item<double>());
  });
  // d/dgain of the last layer alone: out / gain.
  ASSERT_EQ(found.size(), 2u);
  EXPECT_NEAR(found[0], (out.sum() / 2).item<double>(), 1e-3);
}

TEST(BlockwisePass, StopsBetweenLayers) {
  const Decoder model = random_decoder(tiny_config());
  struct StopAtOnce final : StopToken {
    bool stop_requested() const override { return true; }
  };
  BlockwisePass pass(model, 0, 4, model.context(8));
  EXPECT_THROW(pass.forward(model.embed(some_ids(1, 8)), StopAtOnce()), Interrupted);
}

TEST(BlockwisePass, MemoryIsOneBlockWhateverTheDepth) {
  const at::Tensor ids = some_ids(1, 8);
  const auto peak_above_model = [&](std::int64_t layers) {
    DecoderConfig config = tiny_config(layers);
    config.hidden_size = 128, config.intermediate_size = 512, config.head_dim = 32;
    const Decoder model = random_decoder(config);
    const CountingAllocator counter;
    BlockwisePass pass(model, 0, layers, model.context(8));
    const at::Tensor out = pass.forward(model.embed(ids));
    double sum = 0;
    pass.backward(at::ones_like(out), [&](std::int64_t, const auto&, auto& grads) {
      for (const at::Tensor& g : grads) sum += g.abs().sum().template item<double>();
    });
    EXPECT_GT(sum, 0);
    const std::int64_t block = config.parameters_per_layer() * 4;
    const std::int64_t state = ids.numel() * config.hidden_size * 4;
    EXPECT_LT(CountingAllocator::peak, block + layers * state + block / 2) << layers;
    return CountingAllocator::peak;
  };
  // Ten layers more are ten hidden states more (4 kB each, and a product's padding), not ten blocks
  // of 1 MB.
  EXPECT_LT(peak_above_model(12) - peak_above_model(2), 100'000);
}

}  // namespace
}  // namespace espalier
