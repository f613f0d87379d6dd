// The `ppl` task of `espalier eval`.
#include "espalier/base/format.h"
#include "espalier/data/token_segments.h"
#include "espalier/eval/perplexity.h"

#include "apps/cli/commands/eval_options.h"

namespace espalier::cli {
namespace {

PerplexityOptions perplexity_options(const EvalSession& session) {
  const EvalOptions& o = session.options;
  const std::int64_t context_length = session.config.context_length;
  PerplexityOptions options;
  options.seq_len = o.seq_len > 0
                        ? o.seq_len
                        : std::min<std::int64_t>(2048, context_length > 0 ? context_length : 2048);
  options.stride = o.stride;
  options.max_segments = o.max_segments;
  options.add_bos = session.bos.has_value();
  options.batch_tokens = session.batch_tokens;
  if (context_length > 0 && options.seq_len + (options.add_bos ? 1 : 0) > context_length) {
    session.context.reporter.warn(format(
        "segments of {} tokens are longer than the model's context of {}: expect a worse score",
        options.seq_len, context_length));
  }
  return options;
}

std::string protocol_text(const EvalOptions& o, const PerplexityOptions& p, std::int64_t segments) {
  return format("{} x {} tokens, {}, {}, {}", format_count(segments), p.seq_len,
                p.stride > 0 ? format("stride {}", p.stride) : std::string("no overlap"),
                p.add_bos ? "BOS in front of each" : "no BOS", o.model.dtype);
}

}  // namespace

struct PerplexityPart::State {
  const EvalSession& session;
  PerplexityOptions options;
  TokenText text;
};

PerplexityPart::PerplexityPart(const EvalSession& session)
    : state_(std::make_unique<State>(State{session, perplexity_options(session), {}})) {
  const EvalOptions& o = session.options;
  state_->text = load_token_text(o.text, session.tokenizer, session.context.reporter,
                                 o.special_in_text, perplexity_text_tokens(state_->options));
}

PerplexityPart::~PerplexityPart() = default;

CostEstimate PerplexityPart::estimate() const {
  const PerplexityOptions& p = state_->options;
  const auto tokens = static_cast<std::int64_t>(state_->text.ids.size());
  const std::int64_t segments =
      p.stride > 0 ? (tokens + p.stride - 1) / p.stride : tokens / p.seq_len;
  const std::int64_t read =
      (p.max_segments > 0 ? std::min(segments, p.max_segments) : segments) * p.seq_len;
  CostEstimate cost =
      forward_cost(state_->session, read, p.seq_len, std::max(p.seq_len, p.batch_tokens));
  cost.note = format("perplexity of {} tokens in segments of {}", format_count(read), p.seq_len);
  return cost;
}

EvalPart PerplexityPart::run(const Decoder& model) const {
  const EvalSession& session = state_->session;
  const EvalOptions& o = session.options;
  const PerplexityOptions& options = state_->options;
  const PerplexityResult r = perplexity(model, state_->text, options, session.bos.value_or(0),
                                        session.context.reporter, session.context.stop);
  EvalPart part;
  part.tokens = r.segments * options.seq_len;
  part.seconds = r.seconds;
  part.results["ppl"] = {{"perplexity", r.perplexity},
                         {"perplexity_stderr", r.perplexity_stderr},
                         {"nll", r.nll},
                         {"nll_stderr", r.nll_stderr},
                         {"tokens", r.tokens},
                         {"n", r.segments}};
  part.config = {{"seq_len", options.seq_len},
                 {"batch_size", std::max<std::int64_t>(1, options.batch_tokens / options.seq_len)},
                 {"stride", options.stride},
                 {"max_segments", options.max_segments},
                 {"text", o.text},
                 {"text_sha256", state_->text.sha256}};
  part.text = format(
      "perplexity {:.4f} ± {:.4f}   nll {:.5f} nats/token, n = {} segments, {} predicted "
      "tokens\n{}\n{:.0f} tokens/s in {}\n",
      r.perplexity, r.perplexity_stderr, r.nll, format_count(r.segments), format_count(r.tokens),
      protocol_text(o, options, r.segments), static_cast<double>(part.tokens) / r.seconds,
      format_seconds(r.seconds));
  return part;
}

}  // namespace espalier::cli
