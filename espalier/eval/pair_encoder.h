// Prompt and answer as tokens, by lm-eval's rules.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/eval/likelihood.h"
#include "espalier/text/tokenizer.h"

namespace espalier {

class PairEncoder {
 public:
  /// `bos`: put in front of every prompt that does not begin with it in writing; nullopt for none.
  /// Keeps a reference to the tokenizer. Throws Error(kUnsupported) when the tokenizer names
  /// neither BOS nor EOS: an empty context would have no token.
  PairEncoder(const Tokenizer& tokenizer, std::optional<TokenId> bos, bool special_in_text = true);

  /// Whitespace at the end of the context moves to the continuation. Both are encoded together,
  /// then the context alone; the continuation's tokens are the rest. An empty context is the
  /// prefix token. Throws Error(kInput) naming `where` when no token is left to score.
  /// Source: lm-eval 0.4.13, TemplateLM._encode_pair and loglikelihood.
  LikelihoodRequest encode(std::string_view context, std::string_view continuation,
                           std::string_view where) const;
  /// A whole text, for rolling windows.
  std::vector<TokenId> encode_page(std::string_view text) const;
  /// BOS, or EOS when there is none.
  TokenId prefix() const { return prefix_; }

 private:
  std::vector<TokenId> encode_text(std::string_view text) const;

  const Tokenizer& tokenizer_;
  std::optional<TokenId> bos_;
  bool special_in_text_;
  TokenId prefix_ = 0;
  std::string prefix_text_;
};

}  // namespace espalier
