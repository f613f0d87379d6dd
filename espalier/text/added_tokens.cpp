// AddedTokens: two passes, over the raw text and over what the normalizer makes of the rest.
#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/added_tokens_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

// The scan costs text length times the longest token in the worst case.
constexpr std::size_t kMaxTokenBytes = 1024;

bool word_before(std::string_view text, std::size_t pos) {
  return pos > 0 && is_word(utf8_decode(text, utf8_previous(text, pos)));
}
bool word_after(std::string_view text, std::size_t pos) {
  return pos < text.size() && is_word(utf8_decode(text, pos));
}

std::size_t skip_spaces_back(std::string_view text, std::size_t pos) {
  while (pos > 0) {
    const std::size_t previous = utf8_previous(text, pos);
    if (!is_whitespace(utf8_decode(text, previous))) break;
    pos = previous;
  }
  return pos;
}

std::size_t skip_spaces(std::string_view text, std::size_t pos) {
  while (pos < text.size() && is_whitespace(utf8_decode(text, pos)))
    pos += utf8_length(static_cast<unsigned char>(text[pos]));
  return pos;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer)
    : tokens_(std::move(tokens)) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    AddedToken& token = tokens_[i];
    token.decoded = token.content;
    if (token.content.empty()) continue;
    if (token.content.size() > kMaxTokenBytes) {
      throw Error(
          ErrorKind::kUnsupported, "added token",
          format("{} bytes long; we handle up to {}", token.content.size(), kMaxTokenBytes));
    }
    by_id_.insert_or_assign(token.id, i);
    by_content_.insert_or_assign(token.content, i);
    if (!token.normalized || token.special)
      marked_.insert(token.content, static_cast<std::int32_t>(i), false);
    if (!token.normalized) {
      raw_.insert(token.content, static_cast<std::int32_t>(i), false);
    } else if (const std::string spelled = normalizer.apply(token.content); !spelled.empty()) {
      normalized_.insert(spelled, static_cast<std::int32_t>(i), false);
      token.decoded = spelled;
    }
  }
}

const AddedToken* AddedTokens::find(TokenId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

void AddedTokens::scan(const ByteTrie& trie, std::string_view text, const SpecialTokenRule& rule,
                       const std::function<void(std::size_t, std::size_t, TokenId)>& found) const {
  std::size_t done = 0;
  std::size_t mark = 0;
  const auto touches_mark = [&](std::size_t begin, std::size_t end) {
    if (rule.marks == nullptr) return false;
    while (mark < rule.marks->size() && (*rule.marks)[mark].second <= begin) ++mark;
    return mark < rule.marks->size() && (*rule.marks)[mark].first < end;
  };
  for (std::size_t pos = 0; pos < text.size() && !trie.empty();) {
    if (!trie.starts_key(static_cast<unsigned char>(text[pos]))) {
      ++pos;
      continue;
    }
    std::size_t length = 0;
    std::int32_t index = -1;
    trie.for_each_prefix(text.substr(pos), [&](std::size_t size, std::int32_t value) {
      if (tokens_[static_cast<std::size_t>(value)].special && touches_mark(pos, pos + size)) return;
      length = size;
      index = value;
    });
    if (index < 0) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
    std::size_t begin = pos;
    std::size_t end = pos + length;
    pos = end;  // a rejected match is passed over as a whole, as there
    if (token.special && !rule.recognise) continue;
    if (token.single_word && (word_before(text, begin) || word_after(text, end))) continue;
    if (token.lstrip) begin = std::min(std::max(skip_spaces_back(text, begin), done), end);
    if (token.rstrip) end = skip_spaces(text, end);
    if (done < begin) found(done, begin, -1);
    found(begin, end, token.id);
    // White space that an rstrip token took may hold another added token; the text after that one
    // then comes again. It is so in the `tokenizers` package, and ids are to be equal.
    done = end;
  }
  if (done < text.size()) found(done, text.size(), -1);
}

void AddedTokens::split(std::string_view text, const Normalizer& normalizer,
                        const SpecialTokenRule& rule,
                        const std::function<void(std::string_view, TokenId, bool)>& part) const {
  const bool marked = rule.marks != nullptr && !rule.marks->empty();
  const SpecialTokenRule inner_rule{.recognise = rule.recognise && !marked};
  scan(marked ? marked_ : raw_, text, rule, [&](std::size_t begin, std::size_t end, TokenId id) {
    const auto stretch = text.substr(begin, end - begin);
    if (id >= 0) {
      part(stretch, id, begin == 0);
      return;
    }
    const std::string owned = normalizer.is_identity() ? std::string() : normalizer.apply(stretch);
    const std::string_view spelled = normalizer.is_identity() ? stretch : std::string_view(owned);
    if (normalized_.empty()) {
      if (!spelled.empty()) part(spelled, -1, begin == 0);
      return;
    }
    scan(normalized_, spelled, inner_rule, [&](std::size_t from, std::size_t to, TokenId inner) {
      part(spelled.substr(from, to - from), inner, begin == 0 && from == 0);
    });
  });
}

}  // namespace espalier::text
