// See sleb.h.
//
// Positions count the layers that are still there. Slot 0 of a buffer is the base stream (nothing
// more removed), slot k the stream without the layer at position k; candidates are positions 1 to
// m-2 of m. Entering position p, slots 0 to p-1 exist. Removing position q leaves every state that
// entered a position <= q valid, with the same slots.
#include "espalier/methods/layer_pruning/sleb.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>

#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/methods/layer_pruning/stream_chunks_internal.h"

namespace espalier::layer_pruning {
namespace {

constexpr std::int64_t kLeastSnapshotBytes = 1ll << 30;

/// Samples that go through the rounds together, and their states entering some positions.
struct Group {
  at::Tensor ids;
  std::map<std::int64_t, at::Tensor> snapshots;  // position -> [slots * samples, tokens, d]
};

class Greedy {
 public:
  Greedy(const Decoder& model, const at::Tensor& ids, const SlebOptions& options,
         Reporter& reporter, const StopToken& stop)
      : model_(model),
        stop_(stop),
        remove_(options.remove),
        alive_(static_cast<std::size_t>(model.num_layers())),
        context_(model.context(ids.size(1))),
        predicted_(predicted_tokens(ids)) {
    std::iota(alive_.begin(), alive_.end(), 0);
    state_bytes_ = ids.size(1) * model.config().hidden_size *
                   static_cast<std::int64_t>(c10::elementSize(model.type()));
    split(ids.to(model.device()), options);
    stride_ = snapshot_stride(ids.size(0), options);
    std::int64_t blocks = 0;
    for (std::int64_t m = model.num_layers(); m > model.num_layers() - remove_; --m)
      blocks += (m - 2) * (m - 1);
    result_.plain_forwards = blocks;
    phase_ = reporter.phase("greedy search", remove_, "rounds");
  }

  SlebResult run() {
    const c10::NoGradGuard no_grad;
    std::int64_t from = 0;
    for (std::int64_t round = 0; round < remove_; ++round) {
      const std::vector<double> losses = run_round(from, round == 0);
      if (round == 0) result_.dense_perplexity = std::exp(losses[0] / predicted_);
      from = choose(losses, round);
      phase_->update(round + 1, format("without layer {}: perplexity {:.2f}",
                                       result_.removed.back(), result_.perplexity.back()));
    }
    return std::move(result_);
  }

 private:
  std::int64_t size() const { return static_cast<std::int64_t>(alive_.size()); }

  void split(const at::Tensor& ids, const SlebOptions& options) {
    const std::int64_t samples = ids.size(0);
    std::int64_t per_group = samples;
    if (options.stream_bytes > 0) {
      per_group =
          std::clamp<std::int64_t>(options.stream_bytes / (state_bytes_ * size()), 1, samples);
    }
    const std::int64_t groups = (samples + per_group - 1) / per_group;
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t first = samples * g / groups, end = samples * (g + 1) / groups;
      groups_.push_back({ids.narrow(0, first, end - first), {}});
    }
  }

  /// The smallest distance between snapshots whose streams fit; beyond the model's depth when none
  /// do.
  std::int64_t snapshot_stride(std::int64_t samples, const SlebOptions& options) const {
    std::int64_t limit = options.snapshot_bytes;
    if (limit <= 0) {
      limit = std::max(kLeastSnapshotBytes,
                       model_.config().parameters() *
                           static_cast<std::int64_t>(c10::elementSize(model_.type())));
    }
    for (std::int64_t stride = 1; stride < size(); ++stride) {
      std::int64_t slots = 0;
      for (std::int64_t p = stride; p < size() - 1; p += stride) slots += p;
      if (slots * samples * state_bytes_ <= limit) return stride;
    }
    return size();
  }

  /// Summed losses of the slots 0..m-2 (0: only in the first round, else NaN). `from`: lowest
  /// position whose layer is another one than in the last round.
  std::vector<double> run_round(std::int64_t from, bool with_base) {
    std::vector<double> losses(static_cast<std::size_t>(size() - 1), 0);
    std::int64_t forwards = 0;
    for (Group& group : groups_) forwards = run_group(group, from, with_base, losses);
    result_.block_forwards += forwards;  // the same for all groups: each is some of the samples
    return losses;
  }

  std::int64_t run_group(Group& group, std::int64_t from, bool with_base,
                         std::vector<double>& losses) {
    const std::int64_t samples = group.ids.size(0), m = size();
    group.snapshots.erase(group.snapshots.upper_bound(from), group.snapshots.end());
    std::int64_t start = 0;
    at::Tensor entering;
    if (group.snapshots.empty()) {
      entering = model_.embed(group.ids);
    } else {
      start = group.snapshots.rbegin()->first;
      entering = group.snapshots.rbegin()->second;
    }
    const at::Tensor streams =
        at::empty({samples * (m - 1), entering.size(1), entering.size(2)}, entering.options());
    streams.narrow(0, 0, entering.size(0)).copy_(entering);
    std::int64_t forwards = 0;
    for (std::int64_t p = start; p < m; ++p) {
      const bool candidate = p >= 1 && p <= m - 2;
      std::int64_t slots = std::clamp<std::int64_t>(p, 1, m - 1);
      if (p > start && p >= 1 && p < m - 1 && p % stride_ == 0)
        group.snapshots[p] = streams.narrow(0, 0, samples * slots).clone();
      if (candidate) streams.narrow(0, samples * p, samples).copy_(streams.narrow(0, 0, samples));
      // The last candidate has its copy: from here on nothing is read off the base stream.
      const std::int64_t first = p >= m - 2 && !with_base ? 1 : 0;
      slots -= first;
      if (slots == 0) continue;
      run_in_place(model_.hold_layer(alive_[static_cast<std::size_t>(p)]),
                   streams.narrow(0, samples * first, samples * slots), context_, stop_);
      forwards += slots;
    }
    for (std::int64_t slot = with_base ? 0 : 1; slot < m - 1; ++slot) {
      losses[static_cast<std::size_t>(slot)] +=
          next_token_nll(model_, streams.narrow(0, samples * slot, samples), group.ids, stop_);
    }
    return forwards;
  }

  /// Removes the best candidate and returns its position.
  std::int64_t choose(const std::vector<double>& losses, std::int64_t round) {
    if (round == 0 && !std::isfinite(losses[0])) {
      throw Error(ErrorKind::kInput, "sleb",
                  format("the perplexity of the whole model is {}", std::exp(losses[0])))
          .hint("check its weights with `espalier verify`, or try --dtype float32");
    }
    std::int64_t best = 0;
    for (std::int64_t k = 1; k < size() - 1; ++k) {
      const double loss = losses[static_cast<std::size_t>(k)];
      if (std::isfinite(loss) && (best == 0 || loss < losses[static_cast<std::size_t>(best)]))
        best = k;
    }
    if (best == 0) {
      throw Error(
          ErrorKind::kInput, "sleb",
          format("in round {} no candidate has a finite loss, the first of them is layer {}",
                 round + 1, alive_[1]))
          .hint("check the model's weights with `espalier verify`, or try --dtype float32");
    }
    if (round + 1 == remove_) {
      result_.last_round.assign(static_cast<std::size_t>(model_.num_layers()), std::nan(""));
      for (std::int64_t k = 1; k < size() - 1; ++k) {
        result_.last_round[static_cast<std::size_t>(alive_[static_cast<std::size_t>(k)])] =
            std::exp(losses[static_cast<std::size_t>(k)] / predicted_);
      }
    }
    result_.removed.push_back(alive_[static_cast<std::size_t>(best)]);
    result_.perplexity.push_back(std::exp(losses[static_cast<std::size_t>(best)] / predicted_));
    alive_.erase(alive_.begin() + best);
    return best;
  }

  const Decoder& model_;
  const StopToken& stop_;
  std::int64_t remove_ = 0, stride_ = 1, state_bytes_ = 0;
  std::vector<std::int64_t> alive_;
  AttentionContext context_;
  double predicted_ = 0;
  std::vector<Group> groups_;
  std::unique_ptr<ProgressPhase> phase_;
  SlebResult result_;
};

}  // namespace

void check_sleb_rounds(std::int64_t layers, std::int64_t remove) {
  if (remove >= 1 && remove <= layers - 2) return;
  throw Error(ErrorKind::kUsage, "sleb",
              format("never removes the first and the last layer: of {} layers 1 to {} can go, "
                     "found {}",
                     layers, std::max<std::int64_t>(0, layers - 2), remove));
}

SlebResult sleb_greedy(const Decoder& model, const at::Tensor& ids, const SlebOptions& options,
                       Reporter& reporter, const StopToken& stop) {
  ESPALIER_ASSERT(ids.dim() == 2 && ids.size(0) > 0 && ids.size(1) >= 2);
  check_sleb_rounds(model.num_layers(), options.remove);
  return Greedy(model, ids, options, reporter, stop).run();
}

SlebResult sleb_plain(const Decoder& model, const at::Tensor& ids, std::int64_t remove) {
  const c10::NoGradGuard no_grad;
  check_sleb_rounds(model.num_layers(), remove);
  const at::Tensor on_device = ids.to(model.device());
  const AttentionContext context = model.context(ids.size(1));
  const auto perplexity_of = [&](const std::vector<std::int64_t>& kept) {
    const Decoder rest = model.with_layers(kept);
    const at::Tensor h = rest.run_layers(rest.embed(on_device), 0, rest.num_layers(), context);
    return std::exp(next_token_nll(rest, h, on_device, never_stop()) / predicted_tokens(on_device));
  };
  SlebResult result;
  std::vector<std::int64_t> alive(static_cast<std::size_t>(model.num_layers()));
  std::iota(alive.begin(), alive.end(), 0);
  result.dense_perplexity = perplexity_of(alive);
  while (static_cast<std::int64_t>(result.removed.size()) < remove) {
    std::size_t best = 0;
    double lowest = 0;
    result.last_round.assign(static_cast<std::size_t>(model.num_layers()), std::nan(""));
    for (std::size_t k = 1; k + 1 < alive.size(); ++k) {
      std::vector<std::int64_t> kept = alive;
      kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(k));
      const double perplexity = perplexity_of(kept);
      result.block_forwards += static_cast<std::int64_t>(kept.size());
      result.last_round[static_cast<std::size_t>(alive[k])] = perplexity;
      if (best == 0 || perplexity < lowest) best = k, lowest = perplexity;
    }
    result.removed.push_back(alive[best]);
    result.perplexity.push_back(lowest);
    alive.erase(alive.begin() + static_cast<std::ptrdiff_t>(best));
  }
  result.plain_forwards = result.block_forwards;
  return result;
}

std::vector<double> sleb_scores(const SlebResult& result, std::int64_t layers) {
  std::vector<double> scores(static_cast<std::size_t>(layers), -1);
  double place = 0;
  const auto next = [&](std::int64_t layer) { scores[static_cast<std::size_t>(layer)] = place++; };
  for (const std::int64_t layer : result.removed) next(layer);
  std::vector<std::int64_t> rest;
  for (std::int64_t layer = 1; layer + 1 < layers; ++layer)
    if (scores[static_cast<std::size_t>(layer)] < 0) rest.push_back(layer);
  std::stable_sort(rest.begin(), rest.end(), [&](std::int64_t a, std::int64_t b) {
    return result.last_round[static_cast<std::size_t>(a)] <
           result.last_round[static_cast<std::size_t>(b)];
  });
  for (const std::int64_t layer : rest) next(layer);
  next(layers - 1);
  if (layers > 1) next(0);
  return scores;
}

}  // namespace espalier::layer_pruning
