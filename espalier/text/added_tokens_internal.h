// Tokens found in the text before any model sees it: special ones and those a user added.
// Leftmost match wins, then the longest; flags as in the `tokenizers` package.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "espalier/text/byte_trie_internal.h"
#include "espalier/text/normalizer_internal.h"
#include "espalier/text/tokenizer.h"

namespace espalier::text {

struct AddedToken {
  std::string content;
  TokenId id = -1;
  bool special = false;
  bool normalized = true;    // looked for in the normalised text rather than in the raw one
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool single_word = false;  // only between non-word characters
  std::string decoded =
      {};  // how decode() spells it: as the normalizer leaves it, when `normalized`
};

/// Where special tokens are recognised. `marks` are sorted stretches [begin, end) of the text in
/// which they are not.
struct SpecialTokenRule {
  bool recognise = true;
  const std::vector<std::pair<std::size_t, std::size_t>>* marks = nullptr;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  /// `tokens` have their ids. Empty contents are ignored.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer);

  /// Calls part(text, id, at_start) over `text` in order; id is -1 for stretches between tokens.
  /// Those are already normalised. With marks, special tokens that are to be found in the
  /// normalised text are looked for in the raw text instead, because marks cannot be followed
  /// through a normalizer.
  void split(std::string_view text, const Normalizer& normalizer, const SpecialTokenRule& rule,
             const std::function<void(std::string_view, TokenId, bool)>& part) const;

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  const AddedToken* find(TokenId id) const;
  const AddedToken* find(std::string_view content) const;
  bool is_special(TokenId id) const {
    const AddedToken* token = find(id);
    return token != nullptr && token->special;
  }

 private:
  void scan(const ByteTrie& trie, std::string_view text, const SpecialTokenRule& rule,
            const std::function<void(std::size_t, std::size_t, TokenId)>& found) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<TokenId, std::size_t> by_id_;
  std::unordered_map<std::string, std::size_t> by_content_;
  ByteTrie raw_;         // value: index into tokens_
  ByteTrie normalized_;  // spelled as the normalizer leaves them
  ByteTrie marked_;      // raw_ and the special ones of normalized_, for text with marks
};

}  // namespace espalier::text
