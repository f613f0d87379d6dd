// Turns of a conversation over one key/value cache.
#include "espalier/sample/conversation.h"

#include <algorithm>

#include <c10/core/InferenceMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/units.h"
#include "espalier/sample/decode_loop_internal.h"

namespace espalier {
namespace {

// A cache for the whole context is made at once when it is no larger than this (pages that are
// never touched cost nothing on a CPU); otherwise it grows, and growing computes the history anew.
constexpr std::int64_t kFreeCacheBytes = std::int64_t{1} << 30;
constexpr std::int64_t kFirstTokens = 4096;

const std::string& template_of(const Tokenizer& tokenizer) {
  if (!tokenizer.chat_template()) {
    throw Error(ErrorKind::kInput, "chat template", "the model comes without one")
        .hint("leave out --chat, or add chat_template.jinja to the model folder");
  }
  return *tokenizer.chat_template();
}

std::int64_t cache_bytes_per_token(const Decoder& model) {
  const DecoderConfig& config = model.config();
  return 2 * model.num_layers() * config.num_kv_heads * config.head_dim *
         static_cast<std::int64_t>(c10::elementSize(model.type()));
}

}  // namespace

Conversation::Conversation(const Decoder& model, const Tokenizer& tokenizer, std::string system)
    : model_(model),
      tokenizer_(tokenizer),
      template_(template_of(tokenizer)),
      system_(std::move(system)) {
  reset();
}

void Conversation::reset() {
  messages_.clear();
  if (!system_.empty()) messages_.push_back({"system", system_});
  turn_ = 0;
}

void Conversation::make_room(std::int64_t tokens) {
  const std::int64_t context = model_.config().context_length;
  tokens = std::min(tokens, context);
  if (cache_ && cache_->capacity() >= tokens) return;
  std::int64_t capacity = context;
  if (context * cache_bytes_per_token(model_) > kFreeCacheBytes)
    capacity = std::min(context, std::max(kFirstTokens, 2 * tokens));
  cache_.emplace(model_.config(), 1, capacity, model_.type(), model_.device());
  cached_.clear();
}

ChatTurn Conversation::say(const std::string& user, const SamplingOptions& options,
                           const std::function<void(std::string_view)>& on_text,
                           const StopToken& stop) {
  sample_internal::check_options(options);
  c10::InferenceMode inference;
  std::vector<ChatMessage> asked = messages_;
  asked.push_back({"user", user});
  const std::vector<TokenId> prompt = template_.encode(tokenizer_, asked, true);
  const auto tokens = static_cast<std::int64_t>(prompt.size());
  const std::int64_t context = model_.config().context_length;
  if (tokens >= context) {
    throw Error(ErrorKind::kInput, "conversation",
                format("has {} tokens, but the model's context is {}", tokens, context))
        .hint("/reset starts a new one");
  }
  make_room(tokens + options.max_new_tokens);
  // At least the last token has to run: its logits are the answer's first.
  auto shared = static_cast<std::int64_t>(
      std::mismatch(cached_.begin(), cached_.end(), prompt.begin(), prompt.end() - 1).first -
      cached_.begin());
  if (!model_.serves(*cache_, tokens)) shared = 0;
  cache_->truncate(shared);
  cached_.resize(static_cast<std::size_t>(shared));

  ChatTurn out;
  out.prompt_tokens = tokens;
  out.prefilled_tokens = tokens - shared;
  RandomStream random(options.seed, "generate", 0, turn_);
  const Stopwatch watch;
  at::Tensor logits;
  try {
    logits = sample_internal::prefill(
        model_, std::span<const TokenId>(prompt).subspan(static_cast<std::size_t>(shared)), *cache_,
        stop);
  } catch (const Interrupted&) {
    cache_->truncate(shared);
    out.finish_reason = "interrupted";
    return out;
  }
  out.prefill_seconds = watch.seconds();
  sample_internal::decode(model_, tokenizer_, prompt, std::move(logits), *cache_, options, random,
                          on_text, stop, sample_internal::OnStop::kEnd, out);
  cached_ = prompt;
  cached_.insert(cached_.end(), out.token_ids.begin(), out.token_ids.end());
  cached_.resize(static_cast<std::size_t>(cache_->length()));
  if (out.finish_reason == "interrupted" && out.token_ids.empty()) return out;
  messages_ = std::move(asked);
  messages_.push_back({"assistant", out.text});
  ++turn_;
  return out;
}

}  // namespace espalier
