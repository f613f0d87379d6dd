// Requests with equal contexts become groups; groups become passes within the token budget; a pass
// is one forward and one head over the rows that predict a continuation's token. Packed rows on the
// CPU, where filler costs as much as text; rectangles on CUDA, where calls cost more than filler.
#include "espalier/eval/likelihood.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

/// Products give a row the same bits from this many rows on (matmul.h).
constexpr std::size_t kFewestRows = 8;
/// Rows of a call of linear_nll where shapes are fixed: its own chunks have as many.
constexpr std::size_t kHeadRows = 512;

using Tokens = std::span<const TokenId>;

/// Continuations of one context, which was already cut to what fits.
struct Group {
  Tokens context;
  std::vector<std::size_t> requests;
  std::int64_t longest = 0;  // sequence that is run, context included
  std::int64_t tokens = 0;   // that a pass runs for it
  bool shared = false;       // the context is a row of its own; else there is one row for all
};

/// What is run of a continuation: its last token is only predicted.
Tokens inputs_of(const LikelihoodRequest& request) {
  return Tokens(request.continuation).first(request.continuation.size() - 1);
}

bool takes_rectangles(const Decoder& model, const LikelihoodOptions& options) {
  return options.rectangles || !model.device().is_cpu();
}

/// One forward pass in the making: rows of tokens and, for each predicted token, the place in
/// them that predicts it.
struct Pass {
  std::vector<std::int64_t> ids;
  std::vector<PackedRow> rows;
  std::vector<std::int64_t> places, targets;
  std::vector<std::pair<std::size_t, std::int64_t>> counts;  // request, its predicted tokens

  std::int64_t append_row(std::initializer_list<Tokens> parts, std::int64_t prefix) {
    const auto before = static_cast<std::int64_t>(ids.size());
    for (const Tokens part : parts) ids.insert(ids.end(), part.begin(), part.end());
    rows.push_back({static_cast<std::int64_t>(ids.size()) - before, prefix});
    return before;
  }
  /// The continuation's first token is predicted at `first`, the others from `rest` on.
  void predict(std::size_t request, Tokens continuation, std::int64_t first, std::int64_t rest) {
    for (std::size_t i = 0; i < continuation.size(); ++i) {
      places.push_back(i == 0 ? first : rest + static_cast<std::int64_t>(i) - 1);
      targets.push_back(continuation[i]);
    }
    counts.emplace_back(request, static_cast<std::int64_t>(continuation.size()));
  }
};

void check_requests(std::span<const LikelihoodRequest> requests, std::int64_t max_length,
                    std::int64_t vocab) {
  ESPALIER_ASSERT(max_length >= 1);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const LikelihoodRequest& r = requests[i];
    ESPALIER_ASSERT(!r.context.empty() && !r.continuation.empty());
    if (static_cast<std::int64_t>(r.continuation.size()) > max_length) {
      throw Error(ErrorKind::kInput, format("request {}", i),
                  format("its continuation has {} tokens, but the model sees {}",
                         r.continuation.size(), max_length));
    }
    for (const auto* tokens : {&r.context, &r.continuation}) {
      for (const TokenId id : *tokens) {
        if (id < 0 || id >= vocab) {
          throw Error(ErrorKind::kInput, format("request {}", i),
                      format("token id {} is outside the vocabulary of {}", id, vocab))
              .hint("the tokenizer and the model do not belong together");
        }
      }
    }
  }
}

std::vector<Group> group_by_context(const Decoder& model,
                                    std::span<const LikelihoodRequest> requests,
                                    const LikelihoodOptions& options, LikelihoodStats& stats) {
  const auto less = [](Tokens a, Tokens b) {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  };
  std::map<Tokens, std::vector<std::size_t>, decltype(less)> by_context(less);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto room =
        static_cast<std::size_t>(options.max_length + 1) - requests[i].continuation.size();
    Tokens context = requests[i].context;
    if (context.size() > room) ++stats.truncated;
    context = context.last(std::min(context.size(), room));
    stats.request_tokens +=
        static_cast<std::int64_t>(context.size() + requests[i].continuation.size()) - 1;
    by_context[context].push_back(i);
  }
  const bool packed = !takes_rectangles(model, options);
  std::vector<Group> groups;
  for (const auto& [context, members] : by_context) {
    const auto length = static_cast<std::int64_t>(context.size());
    bool open = false;  // whether the last group takes more continuations
    for (const std::size_t i : members) {
      const Tokens more = inputs_of(requests[i]);
      const auto inputs = static_cast<std::int64_t>(more.size());
      // Also when it is alone: a result must not depend on which other requests there are.
      const bool shared = packed && model.shares_prefixes(length, length + inputs);
      const bool joins =
          open && options.share &&
          (shared ? groups.back().shared && groups.back().tokens + inputs <= options.batch_tokens
                  : std::ranges::equal(more, inputs_of(requests[groups.back().requests.front()])));
      if (!joins) groups.push_back({context, {}, 0, length, shared});
      Group& group = groups.back();
      group.requests.push_back(i);
      group.longest = std::max(group.longest, length + inputs);
      if (shared || !joins) group.tokens += inputs;
      open = true;
    }
  }
  // Longest first: what does not fit into memory fails at once, and rectangles waste little.
  std::ranges::stable_sort(groups,
                           [](const Group& a, const Group& b) { return a.longest > b.longest; });
  return groups;
}

void append(const Group& group, std::span<const LikelihoodRequest> requests, Pass& pass) {
  if (!group.shared) {
    const std::int64_t first =
        pass.append_row({group.context, inputs_of(requests[group.requests.front()])}, -1) +
        static_cast<std::int64_t>(group.context.size()) - 1;
    for (const std::size_t request : group.requests)
      pass.predict(request, requests[request].continuation, first, first + 1);
    return;
  }
  const auto prefix = static_cast<std::int64_t>(pass.rows.size());
  const std::int64_t first =
      pass.append_row({group.context}, -1) + static_cast<std::int64_t>(group.context.size()) - 1;
  for (const std::size_t request : group.requests) {
    const Tokens continuation = requests[request].continuation;
    std::int64_t rest = 0;
    if (continuation.size() > 1) rest = pass.append_row({inputs_of(requests[request])}, prefix);
    pass.predict(request, continuation, first, rest);
  }
}

/// How the rows of a pass lie: packed, or a rectangle when it has a width.
struct Shape {
  std::int64_t width = 0, height = 0;
  std::int64_t tokens(const Pass& pass) const {
    return width == 0 ? static_cast<std::int64_t>(pass.ids.size()) : width * height;
  }
};

at::Tensor as_tensor(const std::vector<std::int64_t>& values) {
  at::Tensor out = at::empty({static_cast<std::int64_t>(values.size())}, at::kLong);
  std::ranges::copy(values, out.mutable_data_ptr<std::int64_t>());
  return out;
}

/// States before the final norm of all rows, one behind the other [total, d].
at::Tensor run_pack(const Decoder& model, Pass& pass) {
  if (pass.ids.size() < kFewestRows) {
    pass.rows.push_back({static_cast<std::int64_t>(kFewestRows - pass.ids.size()), -1});
    pass.ids.resize(kFewestRows, 0);
  }
  return model.run_layers(model.embed(as_tensor(pass.ids).unsqueeze(0)), 0, model.num_layers(),
                          model.packed_context(pass.rows))[0];
}

/// The same [height * width, d] for rows padded on the right, which changes nothing for causal
/// attention, and below; moves the places there.
at::Tensor run_rectangle(const Decoder& model, Pass& pass, const Shape& shape) {
  const at::Tensor ids = at::zeros({shape.height, shape.width}, at::kLong);
  const at::Tensor flat = as_tensor(pass.ids);
  std::int64_t row = 0, from = 0;
  std::vector<std::int64_t> shift;  // of each token's place by the padding before it
  for (const PackedRow& r : pass.rows) {
    ids[row].narrow(0, 0, r.length).copy_(flat.narrow(0, from, r.length));
    shift.insert(shift.end(), static_cast<std::size_t>(r.length), row * shape.width - from);
    from += r.length;
    ++row;
  }
  for (std::int64_t& place : pass.places) place += shift[static_cast<std::size_t>(place)];
  const at::Tensor h = model.run_layers(model.embed(ids.to(model.device())), 0, model.num_layers(),
                                        model.context(shape.width));
  return h.flatten(0, 1);
}

void score(const Decoder& model, Pass& pass, const Shape& shape, bool fixed,
           std::vector<Likelihood>& results) {
  const at::Tensor h = shape.width == 0 ? run_pack(model, pass) : run_rectangle(model, pass, shape);
  const std::size_t predicted = pass.places.size();
  while (pass.places.size() < kFewestRows || (fixed && pass.places.size() % kHeadRows != 0)) {
    pass.places.push_back(pass.places.front());
    pass.targets.push_back(pass.targets.front());
  }
  at::Tensor best;
  const at::Tensor rows = model.final_norm(
      h.index_select(0, as_tensor(pass.places).to(model.device())).unsqueeze(0))[0];
  const at::Tensor nll = linear_nll(rows, model.head_weight(), as_tensor(pass.targets),
                                    std::nullopt, model.config().final_softcap, &best)
                             .to(at::kCPU, at::kDouble);
  best = best.to(at::kCPU);
  const double* values = nll.const_data_ptr<double>();
  const bool* is_best = best.const_data_ptr<bool>();
  std::int64_t at = 0;
  for (const auto& [request, count] : pass.counts) {
    Likelihood& result = results[request];
    result.greedy = true;
    for (const std::int64_t end = at + count; at < end; ++at) {
      result.log_likelihood -= values[at];
      result.greedy = result.greedy && is_best[at];
    }
    if (!std::isfinite(result.log_likelihood)) {
      throw Error(ErrorKind::kInput, format("request {}", request),
                  format("its log-likelihood is {}", result.log_likelihood))
          .hint(
              "check the weights with `espalier verify`; a bfloat16 run may overflow where "
              "--dtype float32 does not");
    }
  }
  ESPALIER_ASSERT(static_cast<std::size_t>(at) == predicted);
}

/// Which groups share passes, and how.
class Passes {
 public:
  Passes(const Decoder& model, const LikelihoodOptions& options)
      : model_(model),
        rectangles_(takes_rectangles(model, options)),
        fixed_(rectangles_ && options.batch_invariant),
        budget_(options.batch_tokens) {}

  /// Whether a row's shape follows from its own length.
  bool fixed() const { return fixed_; }

  /// Index of the first group after those that share a pass with `first`.
  std::size_t end(const std::vector<Group>& groups, std::size_t first) const {
    const std::int64_t width = width_of(groups[first]);
    std::int64_t total = 0;
    std::size_t last = first;
    for (; last < groups.size(); ++last) {
      const Group& group = groups[last];
      total += rectangles_ ? width : group.tokens;
      if (last == first) continue;
      if (total > budget_ || (fixed_ && width_of(group) != width)) break;
      // Filler must not carry a row over a limit that its rotary factors depend on.
      if (rectangles_ && !model_.shares_prefixes(group.tokens, width)) break;
    }
    return last;
  }

  /// Of `rows` groups that begin with `first`.
  Shape shape(const Group& first, std::size_t rows) const {
    if (!rectangles_) return {};
    const std::int64_t width = width_of(first);
    return {width,
            fixed_ ? std::max<std::int64_t>(1, budget_ / width) : static_cast<std::int64_t>(rows)};
  }

 private:
  std::int64_t width_of(const Group& group) const {
    if (!fixed_) return group.tokens;
    const std::int64_t step = group.tokens <= 256 ? 16 : 64;
    const std::int64_t width = (group.tokens + step - 1) / step * step;
    return model_.shares_prefixes(group.tokens, width) ? width : group.tokens;
  }

  const Decoder& model_;
  bool rectangles_, fixed_;
  std::int64_t budget_;
};

}  // namespace

std::vector<Likelihood> log_likelihoods(const Decoder& model,
                                        std::span<const LikelihoodRequest> requests,
                                        const LikelihoodOptions& options, Reporter& reporter,
                                        const StopToken& stop, LikelihoodStats* stats) {
  const at::NoGradGuard no_grad;
  const Stopwatch watch;
  LikelihoodStats counted;
  check_requests(requests, options.max_length, model.config().vocab_size);
  const std::vector<Group> groups = group_by_context(model, requests, options, counted);
  const Passes passes(model, options);
  std::vector<Likelihood> results(requests.size());
  const auto phase =
      reporter.phase("log-likelihoods", static_cast<std::int64_t>(requests.size()), "requests");
  std::int64_t done = 0;
  for (std::size_t first = 0; first < groups.size();) {
    if (stop.stop_requested()) throw Interrupted{};
    const std::size_t last = passes.end(groups, first);
    const Shape shape = passes.shape(groups[first], last - first);
    Pass pass;
    for (; first < last; ++first) append(groups[first], requests, pass);
    counted.forward_tokens += shape.tokens(pass);
    score(model, pass, shape, passes.fixed(), results);
    done += static_cast<std::int64_t>(pass.counts.size());
    phase->update(done);
  }
  synchronize(model.device());
  counted.seconds = watch.seconds();
  if (stats != nullptr) *stats = counted;
  return results;
}

std::vector<LikelihoodRequest> rolling_requests(std::span<const TokenId> page, TokenId prefix,
                                                std::int64_t max_length) {
  ESPALIER_ASSERT(max_length >= 1);
  std::vector<LikelihoodRequest> windows;
  const auto total = static_cast<std::int64_t>(page.size());
  const auto tokens = [&](std::int64_t from, std::int64_t to) {
    return std::vector<TokenId>(page.begin() + from, page.begin() + to);
  };
  for (std::int64_t done = 0; done < total;) {
    const std::int64_t end = std::min(done + max_length, total);
    // What is seen ends one token before what is predicted and is at most max_length long.
    windows.push_back(
        {done == 0 ? std::vector<TokenId>{prefix} : tokens(end - max_length - 1, done),
         tokens(done, end)});
    done = end;
  }
  return windows;
}

std::vector<double> rolling_log_likelihoods(const Decoder& model,
                                            std::span<const std::vector<TokenId>> pages,
                                            TokenId prefix, const LikelihoodOptions& options,
                                            Reporter& reporter, const StopToken& stop,
                                            LikelihoodStats* stats) {
  std::vector<LikelihoodRequest> requests;
  std::vector<std::size_t> owner;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    for (LikelihoodRequest& window : rolling_requests(pages[i], prefix, options.max_length)) {
      requests.push_back(std::move(window));
      owner.push_back(i);
    }
  }
  const std::vector<Likelihood> parts =
      log_likelihoods(model, requests, options, reporter, stop, stats);
  std::vector<double> sums(pages.size(), 0.0);
  for (std::size_t i = 0; i < parts.size(); ++i) sums[owner[i]] += parts[i].log_likelihood;
  return sums;
}

}  // namespace espalier
