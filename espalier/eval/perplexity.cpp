// Perplexity: windows of the text, one batched forward per group of equal windows, sums in float64
// per window.
#include "espalier/eval/perplexity.h"

#include <algorithm>
#include <cmath>
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

/// Token range [begin, end) of the text; the last `counted` of its tokens are scored.
struct Window {
  std::int64_t begin = 0, end = 0, counted = 0;
};

void check_options(const PerplexityOptions& options) {
  ProblemList problems(ErrorKind::kUsage, "perplexity");
  if (options.seq_len < 2)
    problems.add(format("--seq-len is {}, but a segment needs at least 2 tokens", options.seq_len));
  if (options.stride < 0 || options.stride > options.seq_len) {
    problems.add(format("--stride is {}, allowed is 0 (no overlap) to --seq-len {}", options.stride,
                        options.seq_len));
  }
  if (options.batch_tokens < 1)
    problems.add(format("--batch-tokens is {}, it must be at least 1", options.batch_tokens));
  problems.throw_if_any();
}

std::vector<Window> strided_windows(std::int64_t tokens, const PerplexityOptions& options) {
  std::vector<Window> windows;
  std::int64_t scored_to =
      options.add_bos ? 0 : 1;  // without BOS the first token has nothing to be predicted from
  for (std::int64_t begin = 0; scored_to < tokens; begin += options.stride) {
    if (options.max_segments > 0 &&
        static_cast<std::int64_t>(windows.size()) == options.max_segments)
      break;
    const std::int64_t end = std::min(begin + options.seq_len, tokens);
    // At stride == seq_len the first token of a window stands alone on its left side and cannot be
    // scored.
    const std::int64_t first = std::max(scored_to, begin + (options.add_bos ? 0 : 1));
    if (first < end) windows.push_back({begin, end, end - first});
    scored_to = end;
  }
  return windows;
}

std::vector<Window> plain_windows(std::int64_t segments, const PerplexityOptions& options) {
  std::vector<Window> windows;
  for (std::int64_t i = 0; i < segments; ++i) {
    windows.push_back({i * options.seq_len, (i + 1) * options.seq_len,
                       options.seq_len - (options.add_bos ? 0 : 1)});
  }
  return windows;
}

/// NLL sums of `rows` [batch, tokens] over their last counted[i] tokens.
std::vector<double> row_nlls(const Decoder& model, const at::Tensor& rows,
                             const std::vector<std::int64_t>& counted) {
  const std::int64_t batch = rows.size(0), tokens = rows.size(1);
  const at::Tensor ids = rows.to(model.device());
  at::Tensor h = model.run_layers(model.embed(ids), 0, model.num_layers(), model.context(tokens));
  h = model.final_norm(h.narrow(1, 0, tokens - 1));
  const at::Tensor targets = ids.narrow(1, 1, tokens - 1).reshape({-1});
  const at::Tensor nll = linear_nll(h.reshape({-1, h.size(-1)}), model.head_weight(), targets,
                                    std::nullopt, model.config().final_softcap)
                             .view({batch, tokens - 1})
                             .to(at::kCPU, at::kDouble);
  std::vector<double> sums(static_cast<std::size_t>(batch));
  for (std::int64_t i = 0; i < batch; ++i) {
    // Summed in token order, so that the sum is the same in any batch and for any thread count.
    const double* values = nll[i].const_data_ptr<double>();
    double sum = 0;
    for (std::int64_t t = tokens - 1 - counted[static_cast<std::size_t>(i)]; t < tokens - 1; ++t)
      sum += values[t];
    sums[static_cast<std::size_t>(i)] = sum;
  }
  return sums;
}

void finish(PerplexityResult& result) {
  double total = 0;
  for (std::size_t i = 0; i < result.segment_nll.size(); ++i) {
    total += result.segment_nll[i];
    result.tokens += result.segment_tokens[i];
  }
  result.segments = static_cast<std::int64_t>(result.segment_nll.size());
  result.nll = total / static_cast<double>(result.tokens);
  result.perplexity = std::exp(result.nll);
  if (result.segments > 1) {
    // Ratio estimator: segments are the independent draws, and they may differ in length.
    double squares = 0;
    for (std::size_t i = 0; i < result.segment_nll.size(); ++i) {
      const double residual =
          result.segment_nll[i] - result.nll * static_cast<double>(result.segment_tokens[i]);
      squares += residual * residual;
    }
    const auto n = static_cast<double>(result.segments);
    result.nll_stderr = std::sqrt(squares * n / (n - 1)) / static_cast<double>(result.tokens);
    result.perplexity_stderr = result.perplexity * result.nll_stderr;
  }
}

/// `ids` [tokens]: the whole text.
PerplexityResult score_windows(const Decoder& model, const at::Tensor& ids,
                               const std::vector<Window>& windows, const PerplexityOptions& options,
                               TokenId bos, Reporter& reporter, const StopToken& stop) {
  const at::NoGradGuard no_grad;
  const Stopwatch watch;
  PerplexityResult result;
  std::int64_t total = 0, done = 0;
  for (const Window& w : windows) total += w.end - w.begin;
  const auto phase = reporter.phase("perplexity", total, "tokens");
  for (std::size_t first = 0; first < windows.size();) {
    if (stop.stop_requested()) throw Interrupted{};
    const std::int64_t length = windows[first].end - windows[first].begin;
    const auto most =
        static_cast<std::size_t>(std::max<std::int64_t>(1, options.batch_tokens / length));
    std::size_t last = first + 1;
    while (last < windows.size() && last - first < most &&
           windows[last].end - windows[last].begin == length)
      ++last;

    std::vector<at::Tensor> rows;
    std::vector<std::int64_t> counted;
    for (std::size_t i = first; i < last; ++i) {
      const at::Tensor row = ids.narrow(0, windows[i].begin, length);
      rows.push_back(options.add_bos ? at::cat({at::full({1}, bos, at::kLong), row}) : row);
      counted.push_back(windows[i].counted);
    }
    const std::vector<double> sums = row_nlls(model, at::stack(rows), counted);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      if (!std::isfinite(sums[i])) {
        throw Error(ErrorKind::kInput, "perplexity",
                    format("the loss of segment {} is {}", first + i, sums[i]))
            .hint(
                "check the weights with `espalier verify`; a bfloat16 run may overflow where "
                "--dtype float32 does not");
      }
      result.segment_nll.push_back(sums[i]);
      result.segment_tokens.push_back(counted[i]);
    }
    done += length * static_cast<std::int64_t>(last - first);
    phase->update(done);
    first = last;
  }
  synchronize(model.device());
  finish(result);
  result.seconds = watch.seconds();
  return result;
}

}  // namespace

std::int64_t perplexity_text_tokens(const PerplexityOptions& options) {
  if (options.max_segments <= 0) return 0;
  // One more window's worth with a stride: whether a window is the text's last one changes its
  // length only.
  const std::int64_t step = options.stride > 0 ? options.stride : options.seq_len;
  std::int64_t tokens = 0;
  if (__builtin_mul_overflow(step, options.max_segments, &tokens) ||
      __builtin_add_overflow(tokens, options.seq_len, &tokens))
    return 0;
  return tokens;
}

PerplexityResult perplexity(const Decoder& model, const TokenText& text,
                            const PerplexityOptions& options, TokenId bos, Reporter& reporter,
                            const StopToken& stop) {
  check_options(options);
  const at::Tensor segments =
      cut_segments(text, options.seq_len, options.stride > 0 ? 0 : options.max_segments);
  if (options.stride == 0) return perplexity(model, segments, options, bos, reporter, stop);
  const auto tokens = static_cast<std::int64_t>(text.ids.size());
  const at::Tensor ids = at::empty({tokens}, at::kLong);
  std::copy(text.ids.begin(), text.ids.end(), ids.mutable_data_ptr<std::int64_t>());
  return score_windows(model, ids, strided_windows(tokens, options), options, bos, reporter, stop);
}

PerplexityResult perplexity(const Decoder& model, const at::Tensor& ids,
                            const PerplexityOptions& options, TokenId bos, Reporter& reporter,
                            const StopToken& stop) {
  PerplexityOptions cut = options;
  cut.seq_len = ids.size(1);
  check_options(cut);
  return score_windows(model, ids.reshape({-1}), plain_windows(ids.size(0), cut), cut, bos,
                       reporter, stop);
}

}  // namespace espalier
