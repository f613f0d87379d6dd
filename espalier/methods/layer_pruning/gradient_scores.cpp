// See gradient_scores.h. A batch is cut into parts of bounded size; parts of all batches move
// through a layer together, forward and backward.
#include "espalier/methods/layer_pruning/gradient_scores.h"

#include <cmath>

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/methods/layer_pruning/stream_chunks_internal.h"
#include "espalier/models/decoder/blockwise_backward.h"

namespace espalier::layer_pruning {
namespace {

/// Values that are widened to float64 at a time.
constexpr std::int64_t kPiece = 1 << 20;

/// Sum of |w g| in float64.
double product_sum(const at::Tensor& w, const at::Tensor& g) {
  const at::Tensor flat_w = w.detach().reshape({-1}), flat_g = g.reshape({-1});
  double sum = 0;
  for (std::int64_t first = 0; first < flat_w.size(0); first += kPiece) {
    const std::int64_t count = std::min(kPiece, flat_w.size(0) - first);
    sum += (flat_w.narrow(0, first, count).to(at::kDouble) *
            flat_g.narrow(0, first, count).to(at::kDouble))
               .abs()
               .sum()
               .item<double>();
  }
  return sum;
}

double square_sum(const at::Tensor& g) {
  double sum = 0;
  for (const at::Tensor& piece : g.reshape({-1}).split(kPiece))
    sum += piece.to(at::kDouble).square().sum().item<double>();
  return sum;
}

void add_to(std::vector<at::Tensor>& sums, std::vector<at::Tensor>&& more) {
  if (sums.empty()) {
    sums = std::move(more);
    return;
  }
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (!more[i].defined()) continue;
    sums[i] = sums[i].defined() ? sums[i].add_(more[i]) : more[i];
    more[i].reset();
  }
}

/// Some sequences of one batch, on their way through the layers.
struct Part {
  at::Tensor ids;
  double scale = 0;                // 1 / predicted tokens of the batch
  std::vector<at::Tensor> inputs;  // of each layer
  at::Tensor h;                    // what leaves the last layer so far; then the gradient in it
};

class GradientPass {
 public:
  GradientPass(const Decoder& model, Reporter& reporter, const StopToken& stop)
      : model_(model), reporter_(reporter), stop_(stop) {}

  /// Adds the scores of these batches, summed signed, to `scores`; returns the sum of their losses
  /// in nats. `gradnorm` is added up over batches.
  double run(const std::vector<at::Tensor>& batches, GradientScores& scores) {
    context_ = model_.context(batches.front().size(1));
    std::vector<std::vector<Part>> parts;
    for (const at::Tensor& batch : batches) parts.push_back(cut(batch));
    forward(parts);
    double nll = 0;
    for (std::vector<Part>& batch : parts)
      for (Part& part : batch) nll += start_backward(part);
    const auto phase = reporter_.phase("gradients", model_.num_layers(), "layers");
    for (std::int64_t layer = model_.num_layers() - 1; layer >= 0; --layer) {
      backward(layer, parts, scores);
      phase->update(model_.num_layers() - layer);
    }
    return nll;
  }

 private:
  std::vector<Part> cut(const at::Tensor& batch) const {
    std::vector<Part> parts;
    for_each_chunk(batch.size(0), batch.size(1), model_.device(),
                   [&](std::int64_t first, std::int64_t count) {
                     Part part;
                     part.ids = batch.narrow(0, first, count);
                     part.scale = 1 / predicted_tokens(batch);
                     parts.push_back(std::move(part));
                   });
    return parts;
  }

  void forward(std::vector<std::vector<Part>>& parts) {
    const c10::NoGradGuard no_grad;
    const auto phase = reporter_.phase("forward for gradients", model_.num_layers(), "layers");
    for (std::vector<Part>& batch : parts)
      for (Part& part : batch) part.h = model_.embed(part.ids);
    for (std::int64_t layer = 0; layer < model_.num_layers(); ++layer) {
      const Decoder held = model_.hold_layer(layer);
      for (std::vector<Part>& batch : parts) {
        for (Part& part : batch) {
          stop_if_asked(stop_);
          part.inputs.push_back(part.h);
          part.h = held.run_layer(part.h, 0, context_);
        }
      }
      phase->update(layer + 1);
    }
  }

  /// Loss in nats, and part.h becomes its gradient.
  double start_backward(Part& part) {
    stop_if_asked(stop_);
    const c10::AutoGradMode with_grad(true);
    const std::int64_t tokens = part.ids.size(1);
    const at::Tensor h = part.h.detach().requires_grad_(true);
    const at::Tensor normed = model_.final_norm(h.narrow(1, 0, tokens - 1));
    const at::Tensor targets = part.ids.narrow(1, 1, tokens - 1).reshape({-1});
    const at::Tensor loss =
        linear_cross_entropy(normed.reshape({-1, normed.size(-1)}), model_.head_weight().detach(),
                             targets, part.scale, model_.config().final_softcap);
    const double value = loss.item<double>();
    if (!std::isfinite(value)) {
      throw Error(ErrorKind::kInput, "taylor and gradnorm",
                  format("the loss on the calibration text is {}", value))
          .hint("check the model's weights with `espalier verify`, or try --dtype float32");
    }
    part.h = torch::autograd::grad({loss}, {h}).front();
    return value / part.scale;
  }

  void backward(std::int64_t layer, std::vector<std::vector<Part>>& parts, GradientScores& scores) {
    const Decoder held = model_.hold_layer(layer);
    const InputGradient input = layer > 0 ? InputGradient::kYes : InputGradient::kNo;
    std::vector<BlockLeaf> leaves;
    std::vector<at::Tensor> total;
    double norms = 0;
    for (std::vector<Part>& batch : parts) {
      std::vector<at::Tensor> sum;
      for (Part& part : batch) {
        stop_if_asked(stop_);
        const at::Tensor from = std::move(part.inputs.back());
        part.inputs.pop_back();
        LayerGradients result = backward_through_layer(held, 0, from, part.h, context_, {}, input);
        part.h = std::move(result.input);
        leaves = std::move(result.leaves);
        const c10::NoGradGuard no_grad;
        add_to(sum, std::move(result.gradients));
      }
      const c10::NoGradGuard no_grad;
      double squares = 0;
      for (const at::Tensor& g : sum)
        if (g.defined()) squares += square_sum(g);
      norms += std::sqrt(squares);
      add_to(total, std::move(sum));
    }
    const auto at = static_cast<std::size_t>(layer);
    scores.gradnorm[at] += norms;
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      if (total[i].defined() && leaves[i].name.ends_with("weight"))
        scores.taylor[at] += product_sum(leaves[i].value, total[i]);
    }
  }

  const Decoder& model_;
  Reporter& reporter_;
  const StopToken& stop_;
  AttentionContext context_;
};

}  // namespace

GradientScores gradient_scores(const Decoder& model, const at::Tensor& ids,
                               const GradientScoreOptions& options, Reporter& reporter,
                               const StopToken& stop) {
  ESPALIER_ASSERT(ids.dim() == 2 && ids.size(1) >= 2 && ids.size(0) > 0 && options.batch > 0);
  const at::Tensor on_device = ids.to(model.device());
  const std::vector<at::Tensor> batches = on_device.split(options.batch);
  GradientScores scores;
  scores.taylor.assign(static_cast<std::size_t>(model.num_layers()), 0);
  scores.gradnorm = scores.taylor;
  GradientPass pass(model, reporter, stop);
  double nll = 0;
  if (options.taylor_per_batch) {
    for (const at::Tensor& batch : batches) nll += pass.run({batch}, scores);
  } else {
    nll = pass.run(batches, scores);
  }
  for (double& norm : scores.gradnorm) norm /= static_cast<double>(batches.size());
  scores.loss = nll / predicted_tokens(on_device);
  return scores;
}

}  // namespace espalier::layer_pruning
