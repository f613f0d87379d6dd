#include "espalier/eval/pair_encoder.h"

#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/eval/tasks/python_text.h"

namespace espalier {

PairEncoder::PairEncoder(const Tokenizer& tokenizer, std::optional<TokenId> bos,
                         bool special_in_text)
    : tokenizer_(tokenizer), bos_(bos), special_in_text_(special_in_text) {
  const std::optional<TokenId> prefix = tokenizer.bos() ? tokenizer.bos() : tokenizer.eos();
  if (!prefix) {
    throw Error(ErrorKind::kUnsupported, "tokenizer",
                "names neither a begin-of-text nor an end-of-text token, one of which stands for "
                "an empty context");
  }
  prefix_ = *prefix;
  prefix_text_ = tokenizer.decode(std::span(&prefix_, 1));
}

std::vector<TokenId> PairEncoder::encode_text(std::string_view text) const {
  std::vector<TokenId> ids;
  const bool written = !prefix_text_.empty() && text.starts_with(prefix_text_);
  if (bos_ && !written) ids.push_back(*bos_);
  const std::vector<TokenId> rest =
      tokenizer_.encode(text, {.add_special_tokens = false, .special_in_text = special_in_text_});
  ids.insert(ids.end(), rest.begin(), rest.end());
  return ids;
}

std::vector<TokenId> PairEncoder::encode_page(std::string_view text) const {
  return encode_text(text);
}

LikelihoodRequest PairEncoder::encode(std::string_view context, std::string_view continuation,
                                      std::string_view where) const {
  const std::string_view stripped = python_rstrip(context);
  std::string moved(context.substr(stripped.size()));
  moved += continuation;
  LikelihoodRequest request;
  if (stripped.empty()) {
    request.context = {prefix_};
    request.continuation = tokenizer_.encode(
        moved, {.add_special_tokens = false, .special_in_text = special_in_text_});
    // A continuation that begins with the prefix token in writing has its own.
    if (request.continuation.size() > 1 && request.continuation.front() == prefix_)
      request.continuation.erase(request.continuation.begin());
  } else {
    request.context = encode_text(stripped);
    const std::vector<TokenId> whole = encode_text(std::string(stripped) + moved);
    const std::size_t begin = std::min(request.context.size(), whole.size());
    request.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(begin), whole.end());
  }
  if (request.context.empty() || request.continuation.empty()) {
    throw Error(ErrorKind::kInput, where,
                format("\"{}\" leaves no token to score behind its context",
                       std::string_view(moved).substr(0, 60)));
  }
  return request;
}

}  // namespace espalier
