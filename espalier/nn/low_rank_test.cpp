// Adapters against the formula they stand for, differentiated by libtorch.
#include "espalier/nn/low_rank.h"

#include <cmath>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/kernels/keyed_dropout/keyed_dropout.h"
#include "espalier/nn/linear.h"

namespace espalier {
namespace {

constexpr std::int64_t kIn = 96;

/// A layer whose adapter is not the identity; its tensors require gradients.
Linear adapted(std::int64_t out, const LowRankOptions& options, const std::string& name,
               bool bias = false) {
  Linear layer;
  layer.weight = at::randn({out, kIn}) / std::sqrt(double(kIn));
  if (bias) layer.bias = at::randn({out});
  init_low_rank(layer, options, 7, name);
  LowRank& lora = *layer.adapter;
  lora.b.normal_(0, 0.05);
  if (lora.is_dora()) lora.magnitude.mul_(at::rand({out}) + 0.5);
  lora.a.set_requires_grad(true);
  lora.b.set_requires_grad(true);
  if (lora.is_dora()) lora.magnitude.set_requires_grad(true);
  return layer;
}

/// The formula in plain operations; `seen` is x after dropout.
at::Tensor composed(const Linear& layer, const at::Tensor& x, const at::Tensor& seen,
                    const at::Tensor& weight) {
  const LowRank& lora = *layer.adapter;
  at::Tensor z =
      at::matmul(x, weight.t()) + lora.scale * at::matmul(at::matmul(seen, lora.a.t()), lora.b.t());
  if (lora.is_dora()) {
    const at::Tensor v = weight + lora.scale * at::matmul(lora.b.detach(), lora.a.detach());
    z = z * (lora.magnitude / at::linalg_vector_norm(v, 2, {1}));
  }
  return layer.bias.defined() ? z + layer.bias : z;
}

std::vector<at::Tensor> trained(const std::vector<Linear>& layers) {
  std::vector<at::Tensor> list;
  for (const Linear& layer : layers) {
    list.push_back(layer.adapter->a);
    list.push_back(layer.adapter->b);
    if (layer.adapter->is_dora()) list.push_back(layer.adapter->magnitude);
  }
  return list;
}

/// Outputs and gradients of the group equal those of the formula.
void expect_group_equals_formula(const std::vector<Linear>& layers, const at::Tensor& x,
                                 const at::Tensor& seen, const std::vector<at::Tensor>& weights) {
  std::vector<const Linear*> pointers;
  std::vector<at::Tensor> expected, upstream;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    pointers.push_back(&layers[i]);
    expected.push_back(composed(layers[i], x, seen, weights[i]));
    upstream.push_back(at::randn(expected.back().sizes()));
  }
  const std::vector<at::Tensor> found = linear_group(x, pointers);
  ASSERT_EQ(found.size(), expected.size());
  std::vector<at::Tensor> inputs = trained(layers);
  inputs.push_back(x);
  const auto ours = torch::autograd::grad(found, inputs, upstream);
  const auto theirs = torch::autograd::grad(expected, inputs, upstream);
  for (std::size_t i = 0; i < found.size(); ++i)
    EXPECT_TRUE(found[i].allclose(expected[i], 1e-4, 2e-5)) << "output " << i;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    EXPECT_TRUE(ours[i].allclose(theirs[i], 1e-3, 1e-4)) << "gradient " << i;
}

class LowRankTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override { at::manual_seed(11); }
  LowRankOptions options(std::int64_t rank = 8) const {
    return {.rank = rank, .alpha = 16, .dora = GetParam()};
  }
};

TEST_P(LowRankTest, GroupsEqualTheFormula) {
  const std::vector<Linear> layers{adapted(64, options(), "q", true), adapted(32, options(4), "k"),
                                   adapted(48, options(), "v", true)};
  const at::Tensor x = at::randn({3, 20, kIn}).requires_grad_();
  expect_group_equals_formula(layers, x, x, {layers[0].weight, layers[1].weight, layers[2].weight});
}

TEST_P(LowRankTest, OneLayerAloneEqualsTheFormula) {
  const std::vector<Linear> layers{adapted(130, options(), "o")};
  const at::Tensor x = at::randn({5, kIn}).requires_grad_();
  expect_group_equals_formula(layers, x, x, {layers[0].weight});
  EXPECT_TRUE(layers[0](x).equal(linear_group(x, {&layers[0]})[0]));
}

TEST_P(LowRankTest, QuantisedBasesEqualTheFormulaOnTheDequantisedWeight) {
  std::vector<Linear> layers;
  std::vector<at::Tensor> weights;
  for (const std::int64_t out : {64, 40}) {
    Linear layer;
    layer.nf4 = std::make_shared<Nf4Weight>(nf4_quantize(at::randn({out, kIn}) / 10));
    layer.bias = at::randn({out});
    init_low_rank(layer, options(), 1, "layer");
    layer.adapter->b.normal_(0, 0.05);
    for (at::Tensor* t : {&layer.adapter->a, &layer.adapter->b}) t->set_requires_grad(true);
    if (GetParam()) layer.adapter->magnitude.set_requires_grad(true);
    weights.push_back(nf4_dequantize(*layer.nf4, at::kFloat));
    layers.push_back(std::move(layer));
  }
  const at::Tensor x = at::randn({17, kIn}).requires_grad_();
  expect_group_equals_formula(layers, x, x, weights);
}

TEST_P(LowRankTest, DropoutActsOnTheAdapterPathOnlyAndFollowsTheCounter) {
  LowRankOptions o = options();
  o.dropout = 0.3;
  const std::vector<Linear> layers{adapted(64, o, "gate"), adapted(64, o, "up")};
  auto masks = std::make_shared<DropoutState>();
  masks->seed = 5;
  masks->counter = at::scalar_tensor(3, at::kLong);
  for (const Linear& layer : layers) layer.adapter->masks = masks;
  const at::Tensor x = at::randn({40, kIn}).requires_grad_();
  const auto run = [&] { return linear_group(x, {&layers[0], &layers[1]}); };
  const at::Tensor plain = run()[0].detach();

  masks->active = true;
  const DropoutKey key{5, layers[0].adapter->stream, masks->counter};
  const at::Tensor kept = keyed_mask_reference(x.numel(), 0.3, key).view(x.sizes());
  expect_group_equals_formula(layers, x, x * kept / 0.7, {layers[0].weight, layers[1].weight});
  const at::Tensor dropped = run()[0].detach();
  EXPECT_FALSE(dropped.equal(plain));
  EXPECT_TRUE(dropped.equal(run()[0]));
  masks->counter.fill_(4);
  EXPECT_FALSE(dropped.equal(run()[0]));
  masks->counter.fill_(3);
  EXPECT_TRUE(dropped.equal(run()[0]));
}

TEST_P(LowRankTest, FreshAdaptersChangeNothing) {
  Linear layer;
  layer.weight = at::randn({64, kIn}), layer.bias = at::randn({64});
  const at::Tensor x = at::randn({32, kIn}), before = layer(x);
  init_low_rank(layer, options(), 3, "model.layers.0.self_attn.q_proj");
  EXPECT_TRUE(layer(x).allclose(before, 1e-5, 1e-5));
  const at::Tensor a = layer.adapter->a;
  EXPECT_LE(a.abs().max().item<double>(), 1 / std::sqrt(double(kIn)));
  EXPECT_NEAR(a.square().mean().item<double>(), 1.0 / (3 * kIn), 0.1 / (3 * kIn));
  EXPECT_TRUE(layer.adapter->b.equal(at::zeros({64, 8})));

  Linear again;
  again.weight = layer.weight;
  init_low_rank(again, options(), 3, "model.layers.0.self_attn.q_proj");
  EXPECT_TRUE(again.adapter->a.equal(a));
  again.adapter = nullptr;
  init_low_rank(again, options(), 3, "model.layers.1.self_attn.q_proj");
  EXPECT_FALSE(again.adapter->a.equal(a));
}

TEST_P(LowRankTest, MergedWeightComputesTheSame) {
  const Linear layer = adapted(64, options(), "o", true);
  const at::Tensor x = at::randn({32, kIn});
  Linear merged;
  merged.weight = merged_weight(layer), merged.bias = layer.bias;
  EXPECT_TRUE(merged(x).allclose(layer(x).detach(), 1e-4, 1e-5));
}

TEST_P(LowRankTest, BFloat16ComputesNearTheFormulaAndReturnsFloatGradients) {
  Linear layer = adapted(64, options(), "o", true);
  const Linear wide = layer;
  layer.weight = layer.weight.to(at::kBFloat16), layer.bias = layer.bias.to(at::kBFloat16);
  const at::Tensor x = at::randn({64, kIn}), g = at::randn({64, 64});
  const at::Tensor y = layer(x.to(at::kBFloat16));
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  const at::Tensor expected = wide(x);
  EXPECT_LT((y.to(at::kFloat) - expected).norm().item<double>(),
            0.02 * expected.norm().item<double>());
  const auto inputs = trained({layer});
  const auto ours = torch::autograd::grad({y}, inputs, {g.to(at::kBFloat16)});
  const auto theirs = torch::autograd::grad({expected}, inputs, {g});
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(ours[i].scalar_type(), at::kFloat);
    EXPECT_LT((ours[i] - theirs[i]).norm().item<double>(), 0.03 * theirs[i].norm().item<double>());
  }
}

TEST_P(LowRankTest, WorksWhereOnlyPartOfTheGraphIsWanted) {
  const std::vector<Linear> layers{adapted(64, options(), "q"), adapted(32, options(), "k")};
  // x of the first layer requires no gradient, and one output is never used.
  const at::Tensor x = at::randn({20, kIn});
  const auto y = linear_group(x, {&layers[0], &layers[1]});
  const auto grads =
      torch::autograd::grad({y[1].sum()}, {layers[1].adapter->a, layers[1].adapter->b});
  const auto alone =
      torch::autograd::grad({layers[1](x).sum()}, {layers[1].adapter->a, layers[1].adapter->b});
  EXPECT_TRUE(grads[0].allclose(alone[0], 1e-4, 1e-4));
  EXPECT_TRUE(grads[1].allclose(alone[1], 1e-4, 1e-4));
}

TEST_P(LowRankTest, LayersWithoutAdapterMayShareAGroup) {
  const Linear with = adapted(64, options(), "q");
  Linear without;
  without.weight = at::randn({32, kIn}).requires_grad_();
  const at::Tensor x = at::randn({20, kIn}).requires_grad_();
  const auto y = linear_group(x, {&without, &with});
  EXPECT_TRUE(y[0].equal(without(x)));
  EXPECT_TRUE(y[1].equal(with(x)));
  EXPECT_TRUE(torch::autograd::grad({y[0].sum()}, {without.weight})[0].defined());
}

INSTANTIATE_TEST_SUITE_P(Kinds, LowRankTest, testing::Values(false, true),
                         [](const auto& param) { return param.param ? "Dora" : "Lora"; });

TEST(LowRank, RowNormsEqualThoseOfTheFullMatrix) {
  at::manual_seed(1);
  const Linear layer = adapted(130, {.rank = 5, .alpha = 20, .rslora = true, .dora = true}, "o");
  const LowRank& lora = *layer.adapter;
  EXPECT_NEAR(lora.scale, 20 / std::sqrt(5.0), 1e-12);
  const at::Tensor full = layer.weight.to(at::kDouble) +
                          lora.scale * at::matmul(lora.b.to(at::kDouble), lora.a.to(at::kDouble));
  const at::Tensor expected = at::linalg_vector_norm(full, 2, {1}).detach();
  EXPECT_LT((adapted_row_norms(layer).to(at::kDouble) - expected).abs().max().item<double>(), 1e-6);
}

TEST(LowRank, RowsOfZerosDoNotBecomeNaN) {
  Linear layer;
  layer.weight = at::zeros({8, kIn});
  init_low_rank(layer, {.dora = true}, 0, "dead");
  layer.adapter->magnitude.set_requires_grad(true);
  const at::Tensor y = layer(at::randn({10, kIn}));
  EXPECT_TRUE(y.equal(at::zeros({10, 8})));
  const at::Tensor grad = torch::autograd::grad({y.sum()}, {layer.adapter->magnitude})[0];
  EXPECT_TRUE(grad.equal(at::zeros({8})));
}

TEST(LowRank, RefusesImpossibleOptions) {
  Linear layer;
  layer.weight = at::randn({8, kIn});
  try {
    init_low_rank(layer, {.rank = 0, .dropout = 1}, 0, "q_proj");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(error.message().find("rank is 0"), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("dropout is 1"), std::string::npos) << error.message();
  }
  init_low_rank(layer, {}, 0, "q_proj");
  EXPECT_THROW(init_low_rank(layer, {}, 0, "q_proj"), Error);
}

}  // namespace
}  // namespace espalier
