// A Hugging Face tokenizer as GGUF metadata.
#include "espalier/text/export.h"

#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/component_json_internal.h"
#include "espalier/text/derive_merges_internal.h"
#include "espalier/text/gguf_pre_tokenizers_internal.h"
#include "espalier/text/tokenizer_internal.h"

namespace espalier {
namespace {

using text::AddedToken;
using text::BpeMerge;
using text::TokenizerDescription;
using Metadata = std::vector<std::pair<std::string, GgufValue>>;

enum TokenType : std::int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

constexpr std::string_view kMetaspace = "\xE2\x96\x81";

struct TokenTable {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
};

bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with(">");
}

TokenTable make_table(const Tokenizer::Impl& impl, std::int64_t vocab_size, bool sentencepiece,
                      const std::string& source) {
  if (vocab_size < impl.vocab_size) {
    throw Error(ErrorKind::kInput, source,
                format("the tokenizer has {} tokens, but the embedding has {} rows",
                       impl.vocab_size, vocab_size));
  }
  TokenTable table;
  for (std::int64_t i = 0; i < vocab_size; ++i) {
    const auto id = static_cast<TokenId>(i);
    const AddedToken* added = impl.added.find(id);
    const std::string_view token = impl.spelling(id);
    std::int32_t type = kNormal;
    if (token.empty()) {
      type = kUnused;
    } else if (sentencepiece && impl.unk == id) {
      type = kUnknown;
    } else if (added != nullptr) {
      type = added->special ? kControl : kUserDefined;
    } else if (sentencepiece && is_byte_token(token)) {
      type = kByte;
    }
    table.tokens.push_back(type == kUnused ? format("[PAD{}]", i) : std::string(token));
    table.types.push_back(type);
  }
  return table;
}

std::vector<std::string> merge_lines(const Tokenizer::Impl& impl) {
  std::vector<std::string> lines;
  for (const BpeMerge& merge : impl.bpe->merges()) {
    const auto left = impl.description.vocabulary.token(merge.left);
    const auto right = impl.description.vocabulary.token(merge.right);
    if (left.find(' ') != std::string_view::npos || right.find(' ') != std::string_view::npos) {
      throw Error(ErrorKind::kUnsupported, impl.description.source,
                  "a merge of tokens that hold spaces cannot be written to GGUF");
    }
    lines.push_back(format("{} {}", left, right));
  }
  return lines;
}

/// What GGUF calls add_space_prefix, when the components are those of a SentencePiece BPE; nullopt
/// when not.
std::optional<bool> sentencepiece_prefix(const TokenizerDescription& d) {
  if (!d.bpe.byte_fallback) return std::nullopt;
  const auto is = [](const Json& component, const char* type) {
    return component.is_object() && component.value("type", "") == type;
  };
  const auto replaces_space = [&](const Json& step) {
    std::string from;
    return is(step, "Replace") && text::is_literal_pattern(step, &from) && from == " " &&
           step.value("content", "") == kMetaspace;
  };
  if (d.normalizer.is_null() && is(d.pre_tokenizer, "Metaspace") &&
      !text::bool_member(d.pre_tokenizer, "split", true)) {
    return text::string_member(d.pre_tokenizer, "prepend_scheme", "always") != "never";
  }
  if (!d.pre_tokenizer.is_null() && !is(d.pre_tokenizer, "Split"))
    return std::nullopt;  // Gemma cuts at spaces that are gone by then
  if (replaces_space(d.normalizer)) return false;
  if (!is(d.normalizer, "Sequence") || !d.pre_tokenizer.is_null()) return std::nullopt;
  const Json& steps = text::sequence_member(d.normalizer, "normalizers", "normalizer");
  const bool llama2 = steps.size() == 2 && is(steps[0], "Prepend") &&
                      steps[0].value("prepend", "") == kMetaspace && replaces_space(steps[1]);
  return llama2 ? std::optional<bool>(true) : std::nullopt;
}

/// A piece's score is minus the rank of the first merge that makes it: higher is sooner, as
/// SentencePiece wants it.
std::vector<float> make_scores(const Tokenizer::Impl& impl, const TokenTable& table) {
  const auto& merges = impl.bpe->merges();
  std::vector<float> scores(table.tokens.size());
  std::vector<bool> known(table.tokens.size(), false);
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto id = static_cast<std::size_t>(merges[rank].result);
    if (!known[id]) scores[id] = -static_cast<float>(rank);
    known[id] = true;
  }
  for (std::size_t id = 0; id < scores.size(); ++id) {
    if (!known[id])
      scores[id] = table.types[id] == kNormal ? -static_cast<float>(merges.size() + id) : 0.0f;
  }
  return scores;
}

bool same_merges(const std::vector<BpeMerge>& a, const std::vector<BpeMerge>& b) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(),
      [](const BpeMerge& x, const BpeMerge& y) { return x.left == y.left && x.right == y.right; });
}

void add_sentencepiece(const Tokenizer::Impl& impl, const TokenTable& table, bool space_prefix,
                       std::string_view architecture, Metadata& out) {
  out.emplace_back("tokenizer.ggml.model", GgufValue::string("llama"));
  out.emplace_back("tokenizer.ggml.pre", GgufValue::string("default"));
  const std::vector<float> scores = make_scores(impl, table);
  out.emplace_back("tokenizer.ggml.scores", GgufValue::f32s(scores));
  out.emplace_back("tokenizer.ggml.add_space_prefix", GgufValue::boolean(space_prefix));
  // Scores, or ids in gemma's files, cannot always express the merges; readers that know the list
  // take it first.
  std::vector<double> wide(scores.begin(), scores.end());
  if (architecture.starts_with("gemma"))
    for (std::size_t id = 0; id < wide.size(); ++id) wide[id] = -static_cast<double>(id);
  const auto derived =
      text::derive_merges(impl.description.vocabulary, wide, text::MergeOrder::kByScore, {});
  if (!same_merges(derived, impl.bpe->merges()))
    out.emplace_back("tokenizer.ggml.merges", GgufValue::strings(merge_lines(impl)));
}

void add_special_ids(const Tokenizer::Impl& impl, Metadata& out) {
  const auto add = [&](const char* key, std::optional<TokenId> id) {
    if (id) out.emplace_back(key, GgufValue::u32(static_cast<std::uint32_t>(*id)));
  };
  add("tokenizer.ggml.bos_token_id", impl.bos);
  add("tokenizer.ggml.eos_token_id", impl.eos);
  add("tokenizer.ggml.unknown_token_id", impl.unk);
  add("tokenizer.ggml.padding_token_id", impl.pad);
  const auto& around = impl.surroundings;
  const bool bos = impl.bos && around.before == std::vector<TokenId>{*impl.bos};
  const bool eos = impl.eos && around.after == std::vector<TokenId>{*impl.eos};
  if ((!around.before.empty() && !bos) || (!around.after.empty() && !eos)) {
    throw Error(
        ErrorKind::kUnsupported, impl.description.source,
        "its post-processor puts more than BOS and EOS around a text, which GGUF cannot say");
  }
  out.emplace_back("tokenizer.ggml.add_bos_token", GgufValue::boolean(bos));
  out.emplace_back("tokenizer.ggml.add_eos_token", GgufValue::boolean(eos));
  if (impl.chat_template)
    out.emplace_back("tokenizer.chat_template", GgufValue::string(*impl.chat_template));
}

}  // namespace

std::vector<std::pair<std::string, GgufValue>> gguf_tokenizer_metadata(
    const std::filesystem::path& folder, std::int64_t vocab_size, std::string_view architecture) {
  const Tokenizer tokenizer = Tokenizer::from_folder(folder);
  const Tokenizer::Impl& impl = tokenizer.impl();
  const TokenizerDescription& d = impl.description;
  if (!impl.bpe)
    throw Error(ErrorKind::kUnsupported, d.source, "a unigram tokenizer cannot be written to GGUF");
  Metadata out;
  const auto prefix = sentencepiece_prefix(d);
  const bool byte_level = impl.pre_tokenizer.spells_bytes();
  const TokenTable table = make_table(impl, vocab_size, !byte_level, folder.string());
  if (byte_level) {
    const auto pre =
        text::gguf_pre_tokenizer_name(d.pre_tokenizer, d.normalizer, d.bpe.ignore_merges);
    if (!pre) {
      throw Error(ErrorKind::kUnsupported, d.source,
                  "GGUF has no name for the way this tokenizer splits text, and any other name "
                  "would change its ids")
          .hint("keep the model as a Hugging Face folder");
    }
    out.emplace_back("tokenizer.ggml.model", GgufValue::string("gpt2"));
    out.emplace_back("tokenizer.ggml.pre", GgufValue::string(std::string(*pre)));
    out.emplace_back("tokenizer.ggml.merges", GgufValue::strings(merge_lines(impl)));
    out.emplace_back("tokenizer.ggml.add_space_prefix", GgufValue::boolean(false));
  } else if (prefix) {
    add_sentencepiece(impl, table, *prefix, architecture, out);
  } else {
    throw Error(ErrorKind::kUnsupported, d.source,
                "this BPE tokenizer is neither byte-level nor of the SentencePiece kind, so GGUF "
                "has no form for it");
  }
  out.emplace_back("tokenizer.ggml.tokens", GgufValue::strings(table.tokens));
  out.emplace_back("tokenizer.ggml.token_type", GgufValue::i32s(table.types));
  add_special_ids(impl, out);
  return out;
}

}  // namespace espalier
