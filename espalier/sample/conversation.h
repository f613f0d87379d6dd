// A conversation with a model: the history stays in the key/value cache, so a turn costs only its
// new tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/sample/sampler.h"
#include "espalier/text/chat_template.h"

namespace espalier {

/// One answer. prompt_tokens counts the whole conversation so far.
struct ChatTurn : Generation {
  std::int64_t prefilled_tokens = 0;  // of the prompt, those that were not in the cache
};

/// The model and the tokenizer must outlive it. Not thread-safe.
class Conversation {
 public:
  /// With the tokenizer's own chat template: Error(kInput) when it has none. `system` may be empty.
  Conversation(const Decoder& model, const Tokenizer& tokenizer, std::string system = {});

  /// Adds the user's words (never read as special tokens) and the model's answer. `on_text`
  /// receives text as it becomes certain. A stop request ends the answer: what was said stays in
  /// the history, finish_reason is "interrupted" (before the first token, nothing is kept of the
  /// turn). Turn n draws from the stream (seed, "generate", 0, n), so the first equals generate()
  /// of the same prompt. Throws Error(kInput) when the conversation no longer fits the model's
  /// context; the history is then as before the call. The tokens in the cache are compared with the
  /// rendered conversation and those from the first difference on are computed anew: templates that
  /// drop parts of earlier answers stay exact.
  ChatTurn say(const std::string& user, const SamplingOptions& options,
               const std::function<void(std::string_view)>& on_text = {},
               const StopToken& stop = never_stop());

  /// Forgets everything but the system message.
  void reset();

  const std::vector<ChatMessage>& messages() const { return messages_; }

 private:
  void make_room(std::int64_t tokens);

  const Decoder& model_;
  const Tokenizer& tokenizer_;
  ChatTemplate template_;
  std::string system_;
  std::vector<ChatMessage> messages_;
  std::vector<TokenId> cached_;  // the tokens in cache_
  std::optional<KvCache> cache_;
  std::int64_t turn_ = 0;
};

}  // namespace espalier
