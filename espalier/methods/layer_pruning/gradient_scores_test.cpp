// Taylor and GradNorm against autograd over the whole model, batches and their two sums, streamed
// models, refusals, and the memory they take, counted.
#include "espalier/methods/layer_pruning/gradient_scores.h"

#include <cmath>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"

#include "tests/support/counting_allocator.h"
#include "tests/support/random_decoder.h"

namespace espalier::layer_pruning {
namespace {

using testing_support::CountingAllocator;
using testing_support::random_decoder;
using testing_support::RandomCheckpoint;
using testing_support::tiny_config;

at::Tensor some_ids(std::int64_t rows, std::int64_t tokens) {
  return at::arange(rows * tokens, at::kLong).mul(37).add(5).remainder(300).view({rows, tokens});
}

/// Gradients of the mean next-token loss of `ids` by one graph and at::cross_entropy_loss, in float
/// tensors by layer, with the names of the tensors.
struct LayerTruth {
  std::vector<std::string> names;
  std::vector<at::Tensor> values, gradients;
};
std::vector<LayerTruth> truth_of(const Decoder& shared, const at::Tensor& ids, double* loss) {
  Decoder model = shared;
  std::vector<LayerTruth> layers(static_cast<std::size_t>(model.num_layers()));
  std::vector<at::Tensor> variables;
  std::vector<at::Tensor*> slots;
  for (std::int64_t layer = 0; layer < model.num_layers(); ++layer) {
    for_each_tensor(model.block(layer), "", [&](const std::string& name, at::Tensor& tensor) {
      tensor = tensor.detach().requires_grad_(true);
      slots.push_back(&tensor);
      variables.push_back(tensor);
      layers[static_cast<std::size_t>(layer)].names.push_back(name);
      layers[static_cast<std::size_t>(layer)].values.push_back(tensor.detach());
    });
  }
  const at::Tensor logits = model.forward(ids).narrow(1, 0, ids.size(1) - 1);
  const at::Tensor targets = ids.narrow(1, 1, ids.size(1) - 1).reshape({-1});
  const at::Tensor mean = at::cross_entropy_loss(logits.reshape({-1, logits.size(2)}), targets);
  *loss = mean.item<double>();
  const auto grads = torch::autograd::grad({mean}, variables);
  std::size_t next = 0;
  for (LayerTruth& layer : layers)
    for (std::size_t i = 0; i < layer.names.size(); ++i) layer.gradients.push_back(grads[next++]);
  for (at::Tensor* slot : slots) *slot = slot->detach();
  return layers;
}

GradientScores scored(const Decoder& model, const at::Tensor& ids, std::int64_t batch = 10,
                      bool per_batch = false) {
  GradientScoreOptions options;
  options.batch = batch;
  options.taylor_per_batch = per_batch;
  return gradient_scores(model, ids, options, silent_reporter());
}

TEST(GradientScores, EqualAutogradOverTheWholeModel) {
  DecoderConfig config = tiny_config();
  config.attention_bias = true;
  config.family = DecoderFamily::kQwen2;
  const auto checkpoint = std::make_shared<RandomCheckpoint>(config);
  const at::Tensor ids = some_ids(6, 16);
  double loss = 0;
  const auto truth = truth_of(Decoder::load(checkpoint, at::kFloat, at::kCPU), ids, &loss);
  for (const Residency residency : {Residency::kResident, Residency::kStreamed}) {
    const GradientScores scores =
        scored(Decoder::load(checkpoint, at::kFloat, at::kCPU, residency), ids);
    EXPECT_NEAR(scores.loss / loss, 1, 1e-5);
    for (std::size_t layer = 0; layer < 4; ++layer) {
      double taylor = 0, squares = 0, with_biases = 0;
      for (std::size_t i = 0; i < truth[layer].names.size(); ++i) {
        const at::Tensor w = truth[layer].values[i].to(at::kDouble);
        const at::Tensor g = truth[layer].gradients[i].to(at::kDouble);
        const double product = (w * g).abs().sum().item<double>();
        with_biases += product;
        if (truth[layer].names[i].ends_with("weight")) taylor += product;
        squares += g.square().sum().item<double>();
      }
      EXPECT_NEAR(scores.taylor[layer] / taylor, 1, 1e-4) << layer;
      EXPECT_NEAR(scores.gradnorm[layer] / std::sqrt(squares), 1, 1e-4) << layer;
      EXPECT_GT(with_biases / taylor, 1 + 1e-3) << "biases that do not count test nothing";
    }
  }
}

TEST(GradientScores, BatchesAreSummedSignedUnlessAskedOtherwise) {
  const Decoder model = random_decoder(tiny_config(3));
  const at::Tensor ids = some_ids(5, 12);  // batches of 2, 2 and 1
  std::vector<std::vector<LayerTruth>> truths;
  double loss = 0, total = 0;
  for (const at::Tensor& batch : ids.split(2)) {
    truths.push_back(truth_of(model, batch, &loss));
    total += loss * static_cast<double>(batch.size(0));
  }
  const GradientScores together = scored(model, ids, 2), apart = scored(model, ids, 2, true);
  EXPECT_NEAR(together.loss / (total / 5), 1, 1e-5);
  EXPECT_NEAR(apart.loss / together.loss, 1, 1e-12);
  for (std::size_t layer = 0; layer < 3; ++layer) {
    double sum_signed = 0, sum_apart = 0, norms = 0;
    std::vector<double> squares(3, 0);
    for (std::size_t i = 0; i < truths[0][layer].names.size(); ++i) {
      const at::Tensor w = truths[0][layer].values[i].to(at::kDouble);
      at::Tensor g = at::zeros_like(w);
      for (std::size_t b = 0; b < 3; ++b) {
        const at::Tensor one = truths[b][layer].gradients[i].to(at::kDouble);
        g += one;
        sum_apart += (w * one).abs().sum().item<double>();
        squares[b] += one.square().sum().item<double>();
      }
      sum_signed += (w * g).abs().sum().item<double>();
    }
    for (const double s : squares) norms += std::sqrt(s) / 3;
    EXPECT_NEAR(together.taylor[layer] / sum_signed, 1, 1e-4);
    EXPECT_NEAR(apart.taylor[layer] / sum_apart, 1, 1e-4);
    EXPECT_NEAR(together.gradnorm[layer] / norms, 1, 1e-4);
    EXPECT_NEAR(apart.gradnorm[layer] / norms, 1, 1e-4);
    EXPECT_GT(sum_apart / sum_signed, 1.05) << "equal sums test nothing";
  }
}

TEST(GradientScores, PartsOfABatchAddUp) {
  const Decoder model = random_decoder(tiny_config(2));
  const at::Tensor ids = some_ids(90, 32);  // 2,880 tokens: more than one part
  double loss = 0;
  const auto truth = truth_of(model, ids, &loss);
  const GradientScores scores = scored(model, ids, 90);
  EXPECT_NEAR(scores.loss / loss, 1, 1e-5);
  for (std::size_t layer = 0; layer < 2; ++layer) {
    double squares = 0;
    for (const at::Tensor& g : truth[layer].gradients)
      squares += g.to(at::kDouble).square().sum().item<double>();
    EXPECT_NEAR(scores.gradnorm[layer] / std::sqrt(squares), 1, 1e-4);
  }
}

TEST(GradientScores, ModelIsLeftAsItWasAndNanIsRefused) {
  Decoder model = random_decoder(tiny_config(2));
  scored(model, some_ids(2, 8));
  model.for_each_parameter([](const std::string& name, at::Tensor& tensor) {
    EXPECT_FALSE(tensor.requires_grad()) << name;
  });
  model.block(1).mlp.up_proj.weight =
      at::full_like(model.block(1).mlp.up_proj.weight, std::nan(""));
  try {
    scored(model, some_ids(2, 8));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_EQ(error.message(), "the loss on the calibration text is nan");
  }
  struct StopAtOnce final : StopToken {
    bool stop_requested() const override { return true; }
  };
  EXPECT_THROW(gradient_scores(random_decoder(tiny_config(2)), some_ids(2, 8), {},
                               silent_reporter(), StopAtOnce()),
               Interrupted);
}

TEST(GradientScores, PeakMemoryIsTheModelAndOneBlock) {
  const at::Tensor ids = some_ids(2, 8);
  const auto peak_above_model = [&](std::int64_t layers) {
    DecoderConfig config = tiny_config(layers);
    config.hidden_size = 256, config.intermediate_size = 2048, config.head_dim = 64;
    const Decoder model = random_decoder(config);
    const CountingAllocator counter;
    scored(model, ids);
    const std::int64_t block = config.parameters_per_layer() * 4;
    const std::int64_t states = (layers + 2) * ids.numel() * config.hidden_size * 4;
    // Beside the gradients of one block: the block's activations, and pieces of 8 MB in float64.
    EXPECT_LT(CountingAllocator::peak, block + states + 3 * (8 << 20)) << layers;
    return CountingAllocator::peak - states;
  };
  const std::int64_t shallow = peak_above_model(2), deep = peak_above_model(8);
  EXPECT_LT(std::abs(deep - shallow), 64 << 10) << "grows with depth";
}

}  // namespace
}  // namespace espalier::layer_pruning
