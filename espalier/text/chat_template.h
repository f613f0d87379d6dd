// Chat templates: the Jinja subset that model families use, interpreted; no code from a checkpoint
// is ever run.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "espalier/text/tokenizer.h"

namespace espalier {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

/// A conversation as ids, and where in them the assistant speaks.
struct ChatTokens {
  std::vector<TokenId> ids;
  /// [begin, end) of each answer with words in it, in order: from where the model starts to write
  /// up to and including the special token that ends the turn, where the template writes one.
  std::vector<std::pair<std::size_t, std::size_t>> answers;
};

/// White space as transformers sets it (trim_blocks, lstrip_blocks). `tools` and `documents` are
/// none; `strftime_now` is not defined, so that the same conversation gives the same prompt every
/// day: templates that ask first fall back to their own date, the others end in an Error.
class ChatTemplate {
 public:
  /// Parses; Error(kUnsupported) names the construct and line that we do not have, Error(kInput) a
  /// syntax error.
  explicit ChatTemplate(std::string_view jinja_source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  /// The prompt text. `strings` are extra variables (bos_token, eos_token). raise_exception in the
  /// template becomes Error(kInput). Loops are bounded (1e6 steps).
  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                     const std::map<std::string, std::string>& strings = {}) const;

  /// As encode_chat below, with this template.
  std::vector<TokenId> encode(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                              bool add_generation_prompt) const;

  /// The whole conversation without a generation prompt, for training. Throws Error(kUnsupported)
  /// naming the message when the template hides the words of an answer. Cost: two more renderings
  /// and three more encodings per answer.
  ChatTokens encode_with_answers(const Tokenizer& tokenizer,
                                 const std::vector<ChatMessage>& messages) const;

  /// The special token that ends an answer in this template ("<|im_end|>"), where it writes one. A
  /// model whose settings do not name it as an end would otherwise talk on for the user.
  std::optional<TokenId> end_of_turn(const Tokenizer& tokenizer) const;

  struct Impl;  // defined in an internal header

 private:
  std::unique_ptr<Impl> impl_;
};

/// Token ids of a conversation: the template's own text may hold special tokens, the messages'
/// words are never read as special tokens, even when they spell one.
std::vector<TokenId> encode_chat(const Tokenizer& tokenizer,
                                 const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt);

}  // namespace espalier
