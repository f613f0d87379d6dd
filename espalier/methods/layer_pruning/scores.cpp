// The one sweep: layer by layer, the base stream and every stream that has skipped an earlier
// layer.
//
// Slot 0 of the buffer is the base stream; slot l+1 is born at layer l as a copy of the base input
// ("l skipped"). So at layer l the block runs on l+1 streams, L (L+1) / 2 block-forwards in all,
// and after the last layer every slot holds the final hidden states of one leave-one-out model.
// Source of the idea: spec 4.1; the scores: ShortGPT (bi), Gromov et al. (angular), Shortened LLaMA
// (ppl, magnitudes), RedTest (cka_adj).
#include "espalier/methods/layer_pruning/scores.h"

#include <algorithm>
#include <cmath>

#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/similarity/similarity.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::layer_pruning {
namespace {

/// Tokens that run through a block at once: bounds the activations of the feed-forward part
/// whatever the sample count.
std::int64_t chunk_tokens(at::Device device) { return device.is_cuda() ? 1 << 14 : 2560; }

constexpr std::int64_t kCkaSamples =
    1024;  // rows of a CKA minibatch at most: its Gram is the square of this

void stop_if_asked(const StopToken& stop) {
  if (stop.stop_requested()) throw Interrupted{};
}

/// fn(first, count) over sequences, in chunks of about chunk_tokens.
template <class Fn>
void for_each_chunk(std::int64_t sequences, std::int64_t tokens, at::Device device, Fn&& fn) {
  const std::int64_t chunk = std::max<std::int64_t>(1, chunk_tokens(device) / tokens);
  for (std::int64_t first = 0; first < sequences; first += chunk)
    fn(first, std::min(chunk, sequences - first));
}

/// Runs the single layer of `held` over h [sequences, tokens, d] in place.
void run_in_place(const Decoder& held, const at::Tensor& h, const AttentionContext& context,
                  const StopToken& stop) {
  for_each_chunk(h.size(0), h.size(1), held.device(), [&](std::int64_t first, std::int64_t count) {
    stop_if_asked(stop);
    const at::Tensor part = h.narrow(0, first, count);
    part.copy_(held.run_layer(part, 0, context));
  });
}

/// Perplexity of the next-token predictions of hidden states h [samples, tokens, d] before the
/// final norm.
double perplexity_of(const Decoder& model, const at::Tensor& h, const at::Tensor& ids,
                     const StopToken& stop) {
  const std::int64_t tokens = ids.size(1);
  double nll = 0;
  for_each_chunk(h.size(0), tokens, model.device(), [&](std::int64_t first, std::int64_t count) {
    stop_if_asked(stop);
    const at::Tensor hidden = model.final_norm(h.narrow(0, first, count).narrow(1, 0, tokens - 1));
    const at::Tensor targets = ids.narrow(0, first, count).narrow(1, 1, tokens - 1).reshape({-1});
    nll += linear_nll(hidden.reshape({-1, hidden.size(-1)}), model.head_weight(), targets)
               .sum(at::kDouble)
               .item<double>();
  });
  return std::exp(nll / static_cast<double>(ids.size(0) * (tokens - 1)));
}

/// Sum of |w| (p = 1) or w^2 (p = 2) over the weights of a block, float64.
double magnitude(DecoderBlock block, int p) {
  double sum = 0;
  for_each_tensor(block, "", [&](const std::string& name, const at::Tensor& weight) {
    if (!name.ends_with("weight")) return;
    for (const at::Tensor& rows : weight.split(
             std::max<std::int64_t>(1, (1 << 20) / std::max<std::int64_t>(1, weight[0].numel())))) {
      const at::Tensor w = rows.to(at::kDouble);
      sum += (p == 1 ? w.abs() : w.square()).sum().item<double>();
    }
  });
  return sum;
}

/// CKA between all of h_0..h_L, from one layer's states at a time: only centred Grams are kept.
class CkaCollector {
 public:
  CkaCollector(std::int64_t states, const at::Tensor& ids, std::int64_t skip_first)
      : states_(states), skip_first_(skip_first) {
    const std::int64_t samples = ids.size(0), tokens = ids.size(1) - skip_first;
    if (tokens < 1 || samples * tokens < 4) {
      throw Error(
          ErrorKind::kInput, "calibration",
          format("{} samples of {} tokens leave {} rows for CKA after dropping {} positions, at "
                 "least 4 are needed",
                 samples, ids.size(1), samples * std::max<std::int64_t>(0, tokens), skip_first))
          .hint("raise --samples or --seq-len");
    }
    // Equal minibatches of whole sequences; a single sequence longer than a minibatch is cut to its
    // first rows.
    const std::int64_t per_batch = std::max<std::int64_t>(1, kCkaSamples / tokens);
    const std::int64_t batches = (samples + per_batch - 1) / per_batch;
    rows_per_sequence_ = std::min(tokens, kCkaSamples);
    for (std::int64_t b = 0; b < batches; ++b) {
      const std::int64_t first = samples * b / batches, end = samples * (b + 1) / batches;
      if ((end - first) * rows_per_sequence_ >= 4) batches_.push_back({first, end - first, {}});
    }
  }

  void add(std::int64_t state, const at::Tensor& h) {
    for (Batch& batch : batches_) {
      const at::Tensor part =
          h.narrow(0, batch.first, batch.count).narrow(1, skip_first_, rows_per_sequence_);
      at::Tensor x = part.reshape({-1, h.size(2)}).to(at::kDouble);
      const at::Tensor rms = x.square().mean(-1, true).sqrt();
      x = (x / at::where(rms.eq(0), at::ones_like(rms), rms)).to(at::kFloat);
      const at::Tensor row = HsicMatrix::centred_row(x, state, CkaEstimator::kUnbiased);
      if (!batch.grams.defined()) batch.grams = at::empty({states_, row.size(0)}, row.options());
      batch.grams[state].copy_(row);
    }
  }

  /// [states, states]; NaN for degenerate states, which are listed.
  at::Tensor matrix(std::vector<std::int64_t>& degenerate) {
    HsicMatrix hsic(states_, CkaEstimator::kUnbiased);
    for (Batch& batch : batches_) {
      hsic.add_rows(batch.grams, batch.count * rows_per_sequence_);
      batch.grams.reset();
    }
    degenerate = hsic.degenerate_layers();
    return hsic.cka();
  }

 private:
  struct Batch {
    std::int64_t first = 0, count = 0;
    at::Tensor grams;
  };
  std::int64_t states_ = 0, skip_first_ = 0, rows_per_sequence_ = 0;
  std::vector<Batch> batches_;
};

class Sweep {
 public:
  Sweep(const Decoder& model, const at::Tensor& ids, const ScoreOptions& options,
        Reporter& reporter, const StopToken& stop)
      : model_(model),
        options_(options),
        reporter_(reporter),
        stop_(stop),
        layers_(model.num_layers()) {
    for (const std::string& metric : options.metrics) check_metric(metric, "metrics");
    reads_weights_ = wants("mag_l1") || wants("mag_l2");
    runs_ = std::any_of(options.metrics.begin(), options.metrics.end(),
                        [](const auto& metric) { return needs_calibration(metric); });
    scores_.layers = layers_;
    if (!runs_) return;
    if (!ids.defined() || ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.numel() == 0) {
      throw Error(ErrorKind::kInput, "calibration",
                  "no tokens, although some of the metrics need them")
          .hint("give text with --calibration FILE");
    }
    ids_ = ids.to(model.device());
    if (wants("ppl") && ids.size(1) < 2) {
      throw Error(ErrorKind::kInput, "calibration",
                  "segments of 1 token predict nothing, at least 2 are needed");
    }
    if (wants("angular") && (options.remove < 1 || options.remove >= layers_)) {
      throw Error(ErrorKind::kUsage, "angular",
                  format("needs the number of layers to remove, 1 to {}, found {}", layers_ - 1,
                         options.remove));
    }
    if (wants("cka_adj")) cka_.emplace(layers_ + 1, ids_, options.cka_skip_first);
  }

  LayerScores run() {
    c10::NoGradGuard no_grad;
    for (const std::string& metric : options_.metrics) {
      if (auto blind = blind_scores(metric, layers_, options_.seed))
        values(metric) = std::move(*blind);
    }
    if (runs_ || reads_weights_) walk();
    if (wants("angular")) add_angular();
    if (cka_) add_cka();
    if (wants("ppl")) add_perplexities();
    check_finite();
    return std::move(scores_);
  }

 private:
  bool wants(std::string_view metric) const {
    return std::find(options_.metrics.begin(), options_.metrics.end(), metric) !=
           options_.metrics.end();
  }
  std::vector<double>& values(const std::string& metric) { return scores_.metrics[metric]; }

  void walk() {
    const bool all = wants("ppl");
    const std::int64_t total = !runs_ ? layers_ : all ? layers_ * (layers_ + 1) / 2 : layers_;
    const auto phase = reporter_.phase(runs_ ? "scoring layers" : "reading weights", total,
                                       runs_ ? "block runs" : "layers");
    AttentionContext context;
    std::int64_t samples = 0;
    if (runs_) {
      samples = ids_.size(0);
      const at::Tensor h = model_.embed(ids_);
      context = model_.context(ids_.size(1));
      streams_ = at::empty({samples * (all ? layers_ + 1 : 2), h.size(1), h.size(2)}, h.options());
      streams_.narrow(0, 0, samples).copy_(h);
      observe(0, streams_.narrow(0, 0, samples));
    }
    for (std::int64_t layer = 0; layer < layers_; ++layer) {
      const Decoder held = model_.hold_layer(layer);
      if (wants("mag_l1")) values("mag_l1").push_back(magnitude(held.block(0), 1));
      if (wants("mag_l2")) values("mag_l2").push_back(magnitude(held.block(0), 2));
      if (runs_) {
        const std::int64_t running = all ? layer + 1 : 1;
        const at::Tensor base = streams_.narrow(0, 0, samples);
        const at::Tensor before =
            streams_.narrow(0, samples * running, samples);  // the new stream "layer skipped"
        before.copy_(base);
        run_in_place(held, streams_.narrow(0, 0, samples * running), context, stop_);
        scores_.block_forwards += running;
        if (wants("bi")) values("bi").push_back(block_influence(before, base));
        observe(layer + 1, base);
      }
      phase->update(runs_ ? scores_.block_forwards : layer + 1);
    }
  }

  /// The base stream h_state.
  void observe(std::int64_t state, const at::Tensor& h) {
    if (wants("angular")) last_tokens_.push_back(h.select(1, h.size(1) - 1).clone());
    if (cka_) cka_->add(state, h);
  }

  void add_angular() {
    std::vector<double>& angular = values("angular");
    angular.assign(static_cast<std::size_t>(layers_), std::nan(""));
    for (std::int64_t j = 0; j + options_.remove <= layers_; ++j) {
      angular[static_cast<std::size_t>(j)] =
          angular_distance(last_tokens_[static_cast<std::size_t>(j)],
                           last_tokens_[static_cast<std::size_t>(j + options_.remove)]);
    }
  }

  void add_cka() {
    std::vector<std::int64_t> degenerate;
    const at::Tensor matrix = cka_->matrix(degenerate).contiguous();
    for (const std::int64_t state : degenerate) {
      reporter_.warn(
          state == 0
              ? std::string(
                    "degenerate embedding: its output is constant on these tokens, CKA counts 0")
              : format("degenerate layer {}: its output is constant on these tokens, CKA counts 0",
                       state - 1));
    }
    const auto* cka = matrix.const_data_ptr<double>();
    for (std::int64_t layer = 0; layer < layers_; ++layer) {
      const double similarity = cka[layer * (layers_ + 1) + layer + 1];
      values("cka_adj").push_back(std::isnan(similarity) ? 1.0 : 1.0 - similarity);
    }
    scores_.cka = matrix.narrow(0, 1, layers_).narrow(1, 1, layers_).contiguous();
  }

  void add_perplexities() {
    const auto phase = reporter_.phase("perplexity without each layer", layers_ + 1, "models");
    const std::int64_t samples = ids_.size(0);
    for (std::int64_t stream = 0; stream <= layers_; ++stream) {
      const double value =
          perplexity_of(model_, streams_.narrow(0, samples * stream, samples), ids_, stop_);
      if (stream == 0) {
        scores_.dense_perplexity = value;
      } else {
        values("ppl").push_back(value);
      }
      phase->update(stream + 1);
    }
  }

  void check_finite() const {
    const auto refuse = [](std::string subject, std::string message) {
      throw Error(ErrorKind::kInput, subject, message)
          .hint(
              "the model gives no usable numbers on this text; check its weights with `espalier "
              "verify`, or try --dtype float32");
    };
    if (wants("ppl") && !std::isfinite(scores_.dense_perplexity)) {
      refuse("ppl", format("the perplexity of the whole model is {}", scores_.dense_perplexity));
    }
    for (const auto& [metric, list] : scores_.metrics) {
      for (std::size_t layer = 0; layer < list.size(); ++layer) {
        const bool past_the_end =
            metric == "angular" && static_cast<std::int64_t>(layer) + options_.remove > layers_;
        if (!std::isfinite(list[layer]) && !past_the_end) {
          refuse(metric, format("the score of layer {} is {}", layer, list[layer]));
        }
      }
    }
  }

  const Decoder& model_;
  const ScoreOptions& options_;
  Reporter& reporter_;
  const StopToken& stop_;
  std::int64_t layers_ = 0;
  bool runs_ = false, reads_weights_ = false;
  at::Tensor ids_;
  at::Tensor streams_;  // [streams * samples, tokens, d]
  std::vector<at::Tensor> last_tokens_;
  std::optional<CkaCollector> cka_;
  LayerScores scores_;
};

}  // namespace

LayerScores score_layers(const Decoder& model, const at::Tensor& ids, const ScoreOptions& options,
                         Reporter& reporter, const StopToken& stop) {
  return Sweep(model, ids, options, reporter, stop).run();
}

std::vector<double> leave_one_out_naive(const Decoder& model, const at::Tensor& ids,
                                        std::int64_t* block_forwards) {
  c10::NoGradGuard no_grad;
  const AttentionContext context = model.context(ids.size(1));
  std::vector<double> perplexities;
  for (std::int64_t skipped = 0; skipped < model.num_layers(); ++skipped) {
    at::Tensor h = model.run_layers(model.embed(ids), 0, skipped, context);
    h = model.run_layers(h, skipped + 1, model.num_layers(), context);
    if (block_forwards != nullptr) *block_forwards += model.num_layers() - 1;
    perplexities.push_back(perplexity_of(model, h, ids.to(model.device()), never_stop()));
  }
  return perplexities;
}

}  // namespace espalier::layer_pruning
