// See importance.h.
#include "espalier/methods/sglp/importance.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"

namespace espalier::sglp {
namespace {

using Layers = std::vector<std::int64_t>;

void stop_if_asked(const StopToken& stop) {
  if (stop.stop_requested()) throw Interrupted{};
}

/// Gradients of the summed cross-entropy times `scale`; undefined where a weight plays no part.
std::vector<at::Tensor> gradients_of(const Cnn& net, const std::vector<at::Tensor>& weights,
                                     const at::Tensor& images, const at::Tensor& targets,
                                     double scale, NormMode mode) {
  const c10::AutoGradMode with_grad(true);
  const at::Tensor logits = net.forward(images, mode).to(at::kFloat);
  const at::Tensor loss =
      at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum).mul(scale);
  return torch::autograd::grad({loss}, weights, {}, /*retain_graph=*/std::nullopt,
                               /*create_graph=*/false, /*allow_unused=*/true);
}

double square_sum(const at::Tensor& gradient) {
  if (!gradient.defined()) return 0;
  return gradient.to(at::kDouble).square().sum().item<double>();
}

/// A copy of its own, whose trained tensors collect gradients.
Cnn trainable_copy(const Cnn& net) {
  Cnn copy = net.clone();
  for (const NamedTensor& parameter : copy.parameters()) parameter.tensor.requires_grad_(true);
  return copy;
}

double binomial(std::int64_t n, std::int64_t k) {
  double count = 1;
  for (std::int64_t i = 1; i <= k; ++i)
    count = count * static_cast<double>(n - k + i) / static_cast<double>(i);
  return std::round(count);
}

/// Layers of one segment: those that stay in every combination, and those to choose from.
struct Pool {
  Layers fixed, free;
  std::int64_t choose = 0;
};

std::vector<Pool> pools(const Segmentation& segmentation, std::int64_t layers,
                        const Layers& budgets, const Layers& always) {
  const Layers segment = segmentation.segment_of(layers);
  std::vector<Pool> all(segmentation.starts.size());
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    Pool& pool = all[static_cast<std::size_t>(segment[static_cast<std::size_t>(layer)])];
    const bool stays = std::find(always.begin(), always.end(), layer) != always.end();
    (stays ? pool.fixed : pool.free).push_back(layer);
  }
  for (std::size_t s = 0; s < all.size(); ++s)
    all[s].choose = budgets[s] - static_cast<std::int64_t>(all[s].fixed.size());
  return all;
}

/// The next choice of `chosen.size()` of n positions in lexicographic order; false after the last.
bool next_choice(Layers& chosen, std::int64_t n) {
  const auto k = static_cast<std::int64_t>(chosen.size());
  for (std::int64_t i = k - 1; i >= 0; --i) {
    if (chosen[static_cast<std::size_t>(i)] == n - k + i) continue;
    ++chosen[static_cast<std::size_t>(i)];
    for (std::int64_t j = i + 1; j < k; ++j)
      chosen[static_cast<std::size_t>(j)] = chosen[static_cast<std::size_t>(j - 1)] + 1;
    return true;
  }
  return false;
}

/// Random networks with some trained layers, on images that never change.
class CombinationProbe {
 public:
  CombinationProbe(const Cnn& net, const ImageSample& images, const CombinationOptions& options)
      : random_(
            trainable_copy(Cnn::make(net.config(), stream_seed(options.seed, "combination weights"))
                               .to(net.device(), at::kFloat))) {
    const auto layers = static_cast<std::int64_t>(net.hidden_layers().size());
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      trained_.push_back(net.hidden_parameters(layer));
      own_.push_back(random_.hidden_parameters(layer));
      std::vector<at::Tensor> saved;
      for (const NamedTensor& tensor : own_.back()) saved.push_back(tensor.tensor.detach().clone());
      saved_.push_back(std::move(saved));
    }
    for (const NamedTensor& parameter : random_.parameters()) weights_.push_back(parameter.tensor);
    draw_images(net, images, options);
  }

  /// Mean over the batches of the gradient norm of all parameters.
  double norm(const Layers& chosen) {
    for (const std::int64_t layer : chosen) set(layer, /*trained=*/true);
    double sum = 0;
    for (std::size_t b = 0; b < images_.size(); ++b) {
      const double scale = 1.0 / static_cast<double>(images_[b].size(0));
      double squares = 0;
      for (const at::Tensor& gradient :
           gradients_of(random_, weights_, images_[b], targets_[b], scale, NormMode::kBatch)) {
        squares += square_sum(gradient);
      }
      sum += std::sqrt(squares);
    }
    for (const std::int64_t layer : chosen) set(layer, /*trained=*/false);
    return sum / static_cast<double>(images_.size());
  }

 private:
  void set(std::int64_t layer, bool trained) {
    const c10::NoGradGuard no_grad;
    const auto at = static_cast<std::size_t>(layer);
    for (std::size_t i = 0; i < own_[at].size(); ++i)
      own_[at][i].tensor.copy_(trained ? trained_[at][i].tensor : saved_[at][i]);
  }

  void draw_images(const Cnn& net, const ImageSample& images, const CombinationOptions& options) {
    RandomStream stream(options.seed, "combination images");
    const std::int64_t count = images.pixels.size(0);
    const at::Tensor order = at::tensor(random_permutation(count, stream), at::kLong);
    ImageSample drawn = images;
    drawn.batch_size = std::min(options.batch_size, count);
    drawn.batches = std::min(options.batches, count / drawn.batch_size);
    const at::Tensor taken = order.narrow(0, 0, drawn.batches * drawn.batch_size);
    drawn.pixels = images.pixels.index_select(0, taken);
    drawn.labels = images.labels.index_select(0, taken);
    for (std::int64_t b = 0; b < drawn.batches; ++b) {
      images_.push_back(drawn.images(net, b));
      targets_.push_back(drawn.targets(net, b));
    }
  }

  Cnn random_;
  std::vector<std::vector<NamedTensor>> trained_, own_;
  std::vector<std::vector<at::Tensor>> saved_;
  std::vector<at::Tensor> weights_, images_, targets_;
};

}  // namespace

std::vector<double> layer_gradient_norms(const Cnn& net, const ImageSample& images,
                                         Reporter& reporter, const StopToken& stop) {
  check_image_sample(net, images);
  const Cnn copy = trainable_copy(net);
  const std::vector<HiddenLayer> layers = copy.hidden_layers();
  std::vector<at::Tensor> weights;
  std::vector<std::size_t> owner;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    for (const NamedTensor& parameter : copy.hidden_parameters(static_cast<std::int64_t>(layer))) {
      weights.push_back(parameter.tensor);
      owner.push_back(layer);
    }
  }
  std::vector<double> norms(layers.size(), 0);
  const auto phase = reporter.phase("gradients", images.batches, "batches");
  for (std::int64_t batch = 0; batch < images.batches; ++batch) {
    const at::Tensor x = images.images(net, batch), y = images.targets(net, batch);
    const double scale = 1.0 / static_cast<double>(x.size(0));
    std::vector<at::Tensor> sums(weights.size());
    for (std::int64_t first = 0; first < x.size(0); first += kGradientPart) {
      stop_if_asked(stop);
      const std::int64_t count = std::min(kGradientPart, x.size(0) - first);
      const std::vector<at::Tensor> part =
          gradients_of(copy, weights, x.narrow(0, first, count), y.narrow(0, first, count), scale,
                       NormMode::kRunning);
      const c10::NoGradGuard no_grad;
      for (std::size_t i = 0; i < part.size(); ++i) {
        if (!part[i].defined()) continue;
        sums[i] = sums[i].defined() ? sums[i].add_(part[i]) : part[i].clone();
      }
    }
    std::vector<double> squares(layers.size(), 0);
    for (std::size_t i = 0; i < sums.size(); ++i) squares[owner[i]] += square_sum(sums[i]);
    for (std::size_t layer = 0; layer < layers.size(); ++layer)
      norms[layer] += std::sqrt(squares[layer]) / static_cast<double>(images.batches);
    phase->update(batch + 1);
  }
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    if (std::isfinite(norms[layer])) continue;
    throw Error(ErrorKind::kInput, "gradient norms",
                format("that of layer {} ({}) is no finite number", layer, layers[layer].name))
        .hint(
            "the network gives no usable loss on these images; are they normalised as in its "
            "training (--mean, --std)?");
  }
  return norms;
}

std::int64_t combination_count(const Segmentation& segmentation, std::int64_t layers,
                               const Layers& budgets, const Layers& always) {
  double count = 0;
  for (const Pool& pool : pools(segmentation, layers, budgets, always))
    count += binomial(static_cast<std::int64_t>(pool.free.size()), pool.choose);
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  return count < static_cast<double>(kMost) ? static_cast<std::int64_t>(count) : kMost;
}

CombinationChoice best_combinations(const Cnn& net, const ImageSample& images,
                                    const Segmentation& segmentation, const Layers& budgets,
                                    const Layers& always, const CombinationOptions& options,
                                    Reporter& reporter, const StopToken& stop) {
  const auto layers = static_cast<std::int64_t>(net.hidden_layers().size());
  const std::int64_t networks = combination_count(segmentation, layers, budgets, always);
  if (networks > options.limit) {
    throw Error(
        ErrorKind::kUsage, "--importance",
        format("combination would try {} networks; {} is the most", networks, options.limit))
        .hint(
            "--importance layer takes one backward pass; or set --segment-keep so that fewer "
            "combinations are left");
  }
  CombinationProbe probe(net, images, options);
  CombinationChoice choice;
  const auto phase = reporter.phase("gradients of combinations", networks, "networks");
  for (const Pool& pool : pools(segmentation, layers, budgets, always)) {
    Layers at(static_cast<std::size_t>(pool.choose)), best;
    for (std::size_t i = 0; i < at.size(); ++i) at[i] = static_cast<std::int64_t>(i);
    double best_norm = -1;
    do {
      stop_if_asked(stop);
      Layers chosen = pool.fixed;
      for (const std::int64_t i : at) chosen.push_back(pool.free[static_cast<std::size_t>(i)]);
      const double norm = probe.norm(chosen);
      if (norm > best_norm) {
        best_norm = norm;
        best = std::move(chosen);
      }
      phase->update(++choice.networks);
    } while (next_choice(at, static_cast<std::int64_t>(pool.free.size())));
    if (best.empty() && !(best_norm >= 0)) {
      throw Error(ErrorKind::kInput, "gradient norms", "those of all combinations are NaN");
    }
    choice.norms.push_back(best_norm);
    choice.kept.insert(choice.kept.end(), best.begin(), best.end());
  }
  std::sort(choice.kept.begin(), choice.kept.end());
  return choice;
}

}  // namespace espalier::sglp
