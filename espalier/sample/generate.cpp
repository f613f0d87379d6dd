// The decoding loop: prefill in chunks, then one token at a time with a key/value cache.
#include <algorithm>

#include <c10/core/InferenceMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/sample/decode_loop_internal.h"
#include "espalier/sample/sampler.h"
#include "espalier/sample/stop_filter.h"

namespace espalier {
namespace sample_internal {
namespace {

// Prompt tokens per forward: enough to fill the matrix units, few enough to notice a stop request
// and to bound memory.
constexpr std::int64_t kPrefillTokens = 512;

/// Logits [vocab] of the token after `ids`, which are appended to the cache; the sequence is known
/// to have `longest` tokens.
at::Tensor step(const Decoder& model, std::span<const TokenId> ids, KvCache& cache,
                std::int64_t longest) {
  const std::vector<std::int64_t> wide(ids.begin(), ids.end());
  const auto count = static_cast<std::int64_t>(ids.size());
  const at::Tensor batch = at::tensor(wide, at::kLong).unsqueeze(0);
  const at::Tensor h = model.run_layers(model.embed(batch), 0, model.num_layers(),
                                        model.context(count, cache.length(), longest), &cache);
  Decoder::advance(cache, count);
  return model.logits(model.final_norm(h.narrow(1, count - 1, 1))).reshape({-1});
}

bool is_end(const Decoder& model, const Tokenizer& tokenizer, const SamplingOptions& options,
            TokenId id) {
  if (options.ignore_eos) return false;
  const auto& more = options.end_ids;
  if (std::find(more.begin(), more.end(), id) != more.end()) return true;
  const auto& ends = model.config().eos_token_ids;
  if (ends.empty()) return tokenizer.eos() == id;
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

}  // namespace

void check_options(const SamplingOptions& options) {
  ProblemList problems(ErrorKind::kUsage, "generate");
  if (!(options.temperature >= 0))
    problems.add(format("temperature is {}, expected at least 0", options.temperature));
  if (!(options.top_p > 0 && options.top_p <= 1))
    problems.add(format("top-p is {}, expected above 0 and at most 1", options.top_p));
  if (options.top_k < 0) problems.add(format("top-k is {}, expected at least 0", options.top_k));
  if (options.max_new_tokens < 0)
    problems.add(format("max-new-tokens is {}, expected at least 0", options.max_new_tokens));
  problems.throw_if_any();
}

at::Tensor prefill(const Decoder& model, std::span<const TokenId> ids, KvCache& cache,
                   const StopToken& stop) {
  at::Tensor logits;
  const std::int64_t longest = cache.length() + static_cast<std::int64_t>(ids.size());
  for (std::size_t first = 0; first < ids.size(); first += kPrefillTokens) {
    if (stop.stop_requested()) throw Interrupted{};
    logits =
        step(model, ids.subspan(first, std::min<std::size_t>(kPrefillTokens, ids.size() - first)),
             cache, longest);
  }
  return logits;
}

void decode(const Decoder& model, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
            at::Tensor logits, KvCache& cache, const SamplingOptions& options, RandomStream& random,
            const std::function<void(std::string_view)>& on_text, const StopToken& stop,
            OnStop on_stop, Generation& out) {
  out.finish_reason = "length";
  StreamDecoder decoder(tokenizer);
  StopFilter filter(options.stop);
  const auto show = [&](const std::string& text) {
    out.text += text;
    if (on_text && !text.empty()) on_text(text);
  };
  // Embeddings are often padded to a round number; rows without a token must not be chosen.
  const std::int64_t words = std::min(model.config().vocab_size, tokenizer.vocab_size());
  const Stopwatch watch;
  while (static_cast<std::int64_t>(out.token_ids.size()) < options.max_new_tokens) {
    if (stop.stop_requested()) {
      if (on_stop == OnStop::kThrow) throw Interrupted{};
      out.finish_reason = "interrupted";
      break;
    }
    const TokenId id = sample_token(logits.narrow(0, 0, words), options, random);
    if (is_end(model, tokenizer, options, id)) {
      out.finish_reason = "eos";
      break;
    }
    out.token_ids.push_back(id);
    show(filter.push(decoder.push(id)));
    if (filter.stopped()) {
      out.finish_reason = "stop";
      break;
    }
    if (static_cast<std::int64_t>(out.token_ids.size()) == options.max_new_tokens) break;
    if (cache.length() == cache.capacity()) {
      out.finish_reason = "context";
      break;
    }
    const std::int64_t longest = cache.length() + 1;
    if (model.serves(cache, longest)) {
      logits = step(model, std::span<const TokenId>(&id, 1), cache, longest);
    } else {
      std::vector<TokenId> all(prompt.begin(), prompt.end());
      all.insert(all.end(), out.token_ids.begin(), out.token_ids.end());
      cache.truncate(0);
      try {
        logits = prefill(model, all, cache, stop);
      } catch (const Interrupted&) {
        if (on_stop == OnStop::kThrow) throw;
        out.finish_reason = "interrupted";
        break;
      }
    }
  }
  if (!filter.stopped()) {
    show(filter.push(decoder.finish()));
    if (filter.stopped()) out.finish_reason = "stop";
    show(filter.finish());
  }
  out.decode_seconds = watch.seconds();
}

}  // namespace sample_internal

Generation generate(const Decoder& model, const Tokenizer& tokenizer,
                    const std::vector<TokenId>& prompt, const SamplingOptions& options,
                    const std::function<void(std::string_view)>& on_text, const StopToken& stop) {
  sample_internal::check_options(options);
  c10::InferenceMode inference;
  const auto prompt_tokens = static_cast<std::int64_t>(prompt.size());
  const std::int64_t context = model.config().context_length;
  if (prompt.empty())
    throw Error(ErrorKind::kInput, "prompt", "holds no tokens")
        .hint("give some text, or --chat to use the model's template");
  if (prompt_tokens >= context) {
    throw Error(ErrorKind::kInput, "prompt",
                format("has {} tokens, but the model's context is {}", prompt_tokens, context))
        .hint("shorten the prompt");
  }
  Generation out;
  out.prompt_tokens = prompt_tokens;
  KvCache cache(model.config(), 1, std::min(context, prompt_tokens + options.max_new_tokens),
                model.type(), model.device());
  RandomStream random(options.seed, "generate");
  const Stopwatch watch;
  at::Tensor logits = sample_internal::prefill(model, prompt, cache, stop);
  out.prefill_seconds = watch.seconds();
  sample_internal::decode(model, tokenizer, prompt, std::move(logits), cache, options, random,
                          on_text, stop, sample_internal::OnStop::kThrow, out);
  return out;
}

}  // namespace espalier
