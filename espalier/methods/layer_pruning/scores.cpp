// The one sweep: layer by layer, the base stream and every stream that has skipped an earlier
// layer.
//
// Slot 0 of the buffer is the base stream; slot l+1 is born at layer l as a copy of the base input
// ("l skipped"). So at layer l the block runs on l+1 streams, L (L+1) / 2 block-forwards in all,
// and after the last layer every slot holds the final hidden states of one leave-one-out model.
// Source of the idea: spec 4.1; the scores: ShortGPT (bi), Gromov et al. (angular), LLM-Streamline
// (cos_block), Shortened LLaMA (ppl, magnitudes), RedTest (cka_adj).
#include "espalier/methods/layer_pruning/scores.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>

#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/methods/layer_pruning/cka_collector_internal.h"
#include "espalier/methods/layer_pruning/gradient_scores.h"
#include "espalier/methods/layer_pruning/sleb.h"
#include "espalier/methods/layer_pruning/stream_chunks_internal.h"
#include "espalier/similarity/similarity.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier::layer_pruning {
namespace {

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

std::vector<double> quotients(const std::vector<double>& sums, double divisor) {
  std::vector<double> out;
  for (const double sum : sums) out.push_back(sum / divisor);
  return out;
}

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
    all_streams_ = wants("ppl") || wants("ppl+");
    sweeps_ = all_streams_ || wants("bi") || wants("angular") || wants("cos_block") || wants_cka();
    const bool reads_text =
        std::any_of(options.metrics.begin(), options.metrics.end(),
                    [](const auto& metric) { return needs_calibration(metric); });
    scores_.layers = layers_;
    if (reads_text) check_text(ids);
  }

  LayerScores run() {
    for (const std::string& metric : options_.metrics) {
      if (auto blind = blind_scores(metric, layers_, options_.seed))
        values(metric) = std::move(*blind);
    }
    if (sweeps_ || reads_weights_) sweep();
    if (wants_gradients()) add_gradient_scores();
    if (wants("sleb")) add_sleb();
    check_finite();
    return std::move(scores_);
  }

 private:
  bool wants(std::string_view metric) const {
    return std::find(options_.metrics.begin(), options_.metrics.end(), metric) !=
           options_.metrics.end();
  }
  bool wants_cka() const { return wants("cka_adj") || wants("sglp"); }
  bool wants_gradients() const {
    return wants("taylor") || wants("taylor+") || wants("gradnorm") || wants("sglp");
  }
  std::vector<double>& values(const std::string& metric) { return scores_.metrics[metric]; }

  void check_text(const at::Tensor& ids) {
    if (!ids.defined() || ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.numel() == 0) {
      throw Error(ErrorKind::kInput, "calibration",
                  "no tokens, although some of the metrics need them")
          .hint("give text with --calibration FILE");
    }
    ids_ = ids.to(model_.device());
    const bool predicts = all_streams_ || wants_gradients() || wants("sleb");
    if (predicts && ids.size(1) < 2) {
      throw Error(ErrorKind::kInput, "calibration",
                  "segments of 1 token predict nothing, at least 2 are needed");
    }
    for (const std::string& metric : options_.metrics) {
      if (scores_runs(metric) && (options_.remove < 1 || options_.remove >= layers_)) {
        throw Error(ErrorKind::kUsage, metric,
                    format("needs the number of layers to remove, 1 to {}, found {}", layers_ - 1,
                           options_.remove));
      }
    }
    if (wants("sleb")) check_sleb_rounds(layers_, options_.remove);
    if (wants_cka()) {
      CkaCollector::check(ids.size(0), ids.size(1), options_.cka_skip_first);
      cka_ = std::make_unique<CkaCollector>(layers_ + 1, ids.size(1), options_.cka_skip_first);
    }
  }

  /// Streams of one sample that are alive at once: base, skipped ones or the input of the running
  /// layer, and the states that cos_block looks back on.
  std::int64_t states_per_sample() const {
    return (all_streams_ ? layers_ + 1 : 2) + (wants("cos_block") ? options_.remove + 1 : 0);
  }

  std::int64_t samples_per_group() const {
    const std::int64_t samples = ids_.size(0);
    if (options_.memory_bytes <= 0) return samples;
    std::int64_t bytes = states_per_sample() * ids_.size(1) * model_.config().hidden_size *
                         static_cast<std::int64_t>(c10::elementSize(model_.type()));
    // A Gram's triangle of a full minibatch is shared by its samples.
    if (cka_)
      bytes +=
          (layers_ + 1) * CkaCollector::kRows * std::min(ids_.size(1), CkaCollector::kRows) * 4;
    return std::clamp<std::int64_t>(options_.memory_bytes / bytes, 1, samples);
  }

  void sweep() {
    const c10::NoGradGuard no_grad;
    if (!sweeps_) {
      const auto phase = reporter_.phase("reading weights", layers_, "layers");
      for (std::int64_t layer = 0; layer < layers_; ++layer) {
        read_weights(model_.hold_layer(layer));
        phase->update(layer + 1);
      }
      return;
    }
    const std::int64_t samples = ids_.size(0), group = samples_per_group();
    const std::int64_t groups = (samples + group - 1) / group;
    if (groups > 1)
      reporter_.info(
          format("scoring {} samples in {} groups to stay within memory", samples, groups));
    const std::int64_t runs = all_streams_ ? layers_ * (layers_ + 1) / 2 : layers_;
    const auto phase = reporter_.phase("scoring layers", runs * groups, "block runs");
    bi_.assign(static_cast<std::size_t>(layers_), 0);
    cos_.assign(static_cast<std::size_t>(layers_), 0);
    nll_.assign(static_cast<std::size_t>(layers_ + 1), 0);
    last_tokens_.resize(static_cast<std::size_t>(layers_ + 1));
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t first = samples * g / groups, end = samples * (g + 1) / groups;
      walk(ids_.narrow(0, first, end - first), g == 0, *phase);
    }
    scores_.block_forwards /= groups;
    if (wants("bi")) values("bi") = quotients(bi_, static_cast<double>(ids_.numel()));
    if (wants("angular")) add_angular();
    if (wants("cos_block")) add_cos_block();
    if (cka_) add_cka();
    if (all_streams_) add_perplexities();
  }

  void read_weights(const Decoder& held) {
    if (wants("mag_l1")) values("mag_l1").push_back(magnitude(held.block(0), 1));
    if (wants("mag_l2")) values("mag_l2").push_back(magnitude(held.block(0), 2));
  }

  /// One pass over the layers with some of the samples.
  void walk(const at::Tensor& ids, bool first_group, ProgressPhase& phase) {
    const std::int64_t samples = ids.size(0);
    const at::Tensor h = model_.embed(ids);
    const AttentionContext context = model_.context(ids.size(1));
    const at::Tensor streams =
        at::empty({samples * (all_streams_ ? layers_ + 1 : 2), h.size(1), h.size(2)}, h.options());
    const at::Tensor base = streams.narrow(0, 0, samples);
    base.copy_(h);
    window_.clear();
    if (cka_) cka_->begin(samples);
    observe(0, base);
    for (std::int64_t layer = 0; layer < layers_; ++layer) {
      const Decoder held = model_.hold_layer(layer);
      if (first_group) read_weights(held);
      const std::int64_t running = all_streams_ ? layer + 1 : 1;
      const at::Tensor before =
          streams.narrow(0, samples * running, samples);  // the new stream "layer skipped"
      before.copy_(base);
      run_in_place(held, streams.narrow(0, 0, samples * running), context, stop_);
      scores_.block_forwards += running;
      if (wants("bi")) {
        bi_[static_cast<std::size_t>(layer)] +=
            block_influence(before, base) * static_cast<double>(ids.numel());
      }
      observe(layer + 1, base);
      phase.update(scores_.block_forwards);
    }
    if (cka_) cka_->end();
    if (all_streams_) add_losses(streams, ids);
  }

  /// The base stream h_state.
  void observe(std::int64_t state, const at::Tensor& h) {
    if (wants("angular"))
      last_tokens_[static_cast<std::size_t>(state)].push_back(h.select(1, h.size(1) - 1).clone());
    if (cka_) cka_->add(state, h);
    if (!wants("cos_block")) return;
    window_.push_back(h.clone());
    if (state < options_.remove) return;
    cos_[static_cast<std::size_t>(state - options_.remove)] +=
        block_influence(window_.front(), window_.back()) *
        static_cast<double>(h.size(0) * h.size(1));
    window_.pop_front();
  }

  void add_losses(const at::Tensor& streams, const at::Tensor& ids) {
    const auto phase = reporter_.phase("perplexity without each layer", layers_ + 1, "models");
    const std::int64_t samples = ids.size(0);
    for (std::int64_t stream = 0; stream <= layers_; ++stream) {
      nll_[static_cast<std::size_t>(stream)] +=
          next_token_nll(model_, streams.narrow(0, samples * stream, samples), ids, stop_);
      phase->update(stream + 1);
    }
  }

  void add_angular() {
    std::vector<at::Tensor> states;
    for (const std::vector<at::Tensor>& parts : last_tokens_) states.push_back(at::cat(parts));
    std::vector<double>& angular = values("angular");
    angular.assign(static_cast<std::size_t>(layers_), std::nan(""));
    for (std::int64_t j = 0; j + options_.remove <= layers_; ++j) {
      angular[static_cast<std::size_t>(j)] =
          angular_distance(states[static_cast<std::size_t>(j)],
                           states[static_cast<std::size_t>(j + options_.remove)]);
    }
  }

  void add_cos_block() {
    std::vector<double> distances = quotients(cos_, static_cast<double>(ids_.numel()));
    std::fill(distances.begin() + (layers_ - options_.remove + 1), distances.end(), std::nan(""));
    values("cos_block") = std::move(distances);
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
      if (wants("cka_adj"))
        values("cka_adj").push_back(std::isnan(similarity) ? 1.0 : 1.0 - similarity);
    }
    scores_.cka = matrix.narrow(0, 1, layers_).narrow(1, 1, layers_).contiguous();
  }

  void add_perplexities() {
    std::vector<double> perplexities;
    for (const double nll : nll_) perplexities.push_back(std::exp(nll / predicted_tokens(ids_)));
    scores_.dense_perplexity = perplexities.front();
    perplexities.erase(perplexities.begin());
    for (const char* metric : {"ppl", "ppl+"})
      if (wants(metric)) values(metric) = perplexities;
  }

  /// Unlike streams, the inputs of all layers are needed at once.
  void check_gradient_memory() const {
    if (options_.memory_bytes <= 0) return;
    const std::int64_t samples =
        options_.taylor_per_batch ? std::min(options_.gradient_batch, ids_.size(0)) : ids_.size(0);
    const std::int64_t bytes = (layers_ + 1) * samples * ids_.size(1) *
                               model_.config().hidden_size *
                               static_cast<std::int64_t>(c10::elementSize(model_.type()));
    if (bytes <= options_.memory_bytes) return;
    throw Error(ErrorKind::kUsage, "taylor, gradnorm and sglp",
                format("every layer's input for {} samples takes {}, {} are left for them", samples,
                       to_string(Bytes{bytes}), to_string(Bytes{options_.memory_bytes})))
        .hint(options_.taylor_per_batch
                  ? "lower --gradient-batch, or raise --memory-limit"
                  : "--taylor-per-batch needs one batch at a time; or fewer --samples");
  }

  void add_gradient_scores() {
    check_gradient_memory();
    GradientScoreOptions options;
    options.batch = options_.gradient_batch;
    options.taylor_per_batch = options_.taylor_per_batch;
    GradientScores gradients = gradient_scores(model_, ids_, options, reporter_, stop_);
    if (scores_.dense_perplexity == 0) scores_.dense_perplexity = std::exp(gradients.loss);
    for (const char* metric : {"taylor", "taylor+"})
      if (wants(metric)) values(metric) = gradients.taylor;
    for (const char* metric : {"gradnorm", "sglp"})
      if (wants(metric)) values(metric) = gradients.gradnorm;
  }

  void add_sleb() {
    SlebOptions options;
    options.remove = options_.remove;
    if (options_.memory_bytes > 0)
      options.snapshot_bytes = options.stream_bytes = options_.memory_bytes / 2;
    SlebResult greedy = sleb_greedy(model_, ids_, options, reporter_, stop_);
    if (scores_.dense_perplexity == 0) scores_.dense_perplexity = greedy.dense_perplexity;
    values("sleb") = sleb_scores(greedy, layers_);
    scores_.greedy = {std::move(greedy.removed), std::move(greedy.perplexity),
                      greedy.block_forwards, greedy.plain_forwards};
  }

  void check_finite() const {
    const auto refuse = [](std::string subject, std::string message) {
      throw Error(ErrorKind::kInput, subject, message)
          .hint(
              "the model gives no usable numbers on this text; check its weights with `espalier "
              "verify`, or try --dtype float32");
    };
    if (!std::isfinite(scores_.dense_perplexity)) {
      refuse("perplexity",
             format("the perplexity of the whole model is {}", scores_.dense_perplexity));
    }
    for (const auto& [metric, list] : scores_.metrics) {
      for (std::size_t layer = 0; layer < list.size(); ++layer) {
        const bool past_the_end =
            scores_runs(metric) && static_cast<std::int64_t>(layer) + options_.remove > layers_;
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
  bool sweeps_ = false, all_streams_ = false, reads_weights_ = false;
  at::Tensor ids_;
  // Sums over groups: of bi and 1 - cosine over tokens, of losses by stream; the states that
  // angular needs, by h_0..h_L.
  std::vector<double> bi_, cos_, nll_;
  std::vector<std::vector<at::Tensor>> last_tokens_;
  std::deque<at::Tensor> window_;  // the last states of this group, for cos_block
  std::unique_ptr<CkaCollector> cka_;
  LayerScores scores_;
};

}  // namespace

LayerScores score_layers(const Decoder& model, const at::Tensor& ids, const ScoreOptions& options,
                         Reporter& reporter, const StopToken& stop) {
  return Sweep(model, ids, options, reporter, stop).run();
}

std::vector<double> leave_one_out_naive(const Decoder& model, const at::Tensor& ids,
                                        std::int64_t* block_forwards) {
  const c10::NoGradGuard no_grad;
  const AttentionContext context = model.context(ids.size(1));
  const at::Tensor on_device = ids.to(model.device());
  std::vector<double> perplexities;
  for (std::int64_t skipped = 0; skipped < model.num_layers(); ++skipped) {
    at::Tensor h = model.run_layers(model.embed(ids), 0, skipped, context);
    h = model.run_layers(h, skipped + 1, model.num_layers(), context);
    if (block_forwards != nullptr) *block_forwards += model.num_layers() - 1;
    perplexities.push_back(
        std::exp(next_token_nll(model, h, on_device, never_stop()) / predicted_tokens(on_device)));
  }
  return perplexities;
}

}  // namespace espalier::layer_pruning
