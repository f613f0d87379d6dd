// Reading the tokenizer.* metadata of a GGUF file: "gpt2" (byte-level BPE) and "llama"
// (SentencePiece BPE).
#include <algorithm>
#include <cmath>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/gguf.h"
#include "espalier/text/byte_level_internal.h"
#include "espalier/text/derive_merges_internal.h"
#include "espalier/text/gguf_pre_tokenizers_internal.h"
#include "espalier/text/tokenizer_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr const char* kMetaspace = "\xE2\x96\x81";

enum TokenType : std::int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct Tables {
  std::vector<std::string> tokens;
  std::vector<std::int64_t> types;  // empty or one per token
  std::int64_t type(std::size_t id) const {
    return types.empty() ? static_cast<std::int64_t>(kNormal) : types[id];
  }
};

Tables read_tables(const GgufFile& file) {
  Tables tables;
  auto tokens = file.get_strings("tokenizer.ggml.tokens");
  if (!tokens || tokens->empty()) {
    throw Error(ErrorKind::kInput, file.path().string(),
                "has no tokenizer.ggml.tokens, so text cannot be encoded")
        .hint("use a GGUF file that carries its tokenizer");
  }
  tables.tokens = std::move(*tokens);
  for (std::size_t id = 0; id < tables.tokens.size(); ++id) {
    if (!is_valid_utf8(tables.tokens[id]))
      throw Error(ErrorKind::kInput, file.path().string(),
                  format("token {} is not valid UTF-8", id));
  }
  if (auto types = file.get_ints("tokenizer.ggml.token_type")) tables.types = std::move(*types);
  if (!tables.types.empty() && tables.types.size() != tables.tokens.size()) {
    throw Error(
        ErrorKind::kInput, file.path().string(),
        format("has {} tokens, but {} token types", tables.tokens.size(), tables.types.size()));
  }
  return tables;
}

void add_tokens(const Tables& tables, TokenizerDescription& d) {
  for (std::size_t id = 0; id < tables.tokens.size(); ++id) {
    const auto type = tables.type(id);
    if (type == kControl || type == kUserDefined) {
      d.added.push_back(
          {.content = tables.tokens[id], .special = type == kControl, .normalized = false});
    }
  }
}

/// Llama's tokenizer class holds these three for special whatever the file says of them.
void mark_llama_tokens(TokenizerDescription& d) {
  for (const char* name : {"<unk>", "<s>", "</s>"}) {
    if (d.vocabulary.find(name) < 0) continue;
    const auto known = std::find_if(d.added.begin(), d.added.end(),
                                    [&](const AddedToken& token) { return token.content == name; });
    if (known != d.added.end()) {
      known->special = true;
    } else {
      d.added.push_back({.content = name, .special = true, .normalized = false});
    }
  }
}

/// "a b" pairs; tokens of the vocabulary may not hold spaces, so the first space is the border.
void read_merges(const std::vector<std::string>& lines, const std::string& path,
                 TokenizerDescription& d) {
  d.merges.reserve(lines.size());
  std::string joined;
  for (std::size_t rank = 0; rank < lines.size(); ++rank) {
    const std::string_view line = lines[rank];
    const std::size_t space = line.find(' ', 1);
    if (space == std::string_view::npos)
      throw Error(ErrorKind::kInput, path, format("merge {} is not a pair of tokens", rank));
    const auto left = line.substr(0, space);
    const auto right = line.substr(space + 1);
    joined.assign(left).append(right);
    const BpeMerge merge{d.vocabulary.find(left), d.vocabulary.find(right),
                         d.vocabulary.find(joined)};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
      throw Error(ErrorKind::kInput, path,
                  format("merge {} (\"{}\") needs a token that the vocabulary lacks", rank,
                         to_valid_utf8(line)));
    }
    d.merges.push_back(merge);
  }
}

void read_byte_level(const GgufFile& file, const Tables& tables, TokenizerDescription& d,
                     TokenizerContext& context) {
  const GgufPreTokenizer pre =
      gguf_pre_tokenizer(file.get_string("tokenizer.ggml.pre").value_or("default"));
  std::string bytes;
  for (std::size_t id = 0; id < tables.tokens.size(); ++id) {
    bytes.clear();
    const std::string& token = tables.tokens[id];
    // An ordinary token in plain text instead of byte letters is a slip of the converter.
    const bool plain = tables.type(id) == kNormal && !append_from_byte_letters(bytes, token);
    d.vocabulary.set(static_cast<TokenId>(id), plain ? to_byte_letters(token) : token);
  }
  const auto merges = file.get_strings("tokenizer.ggml.merges");
  if (!merges)
    throw Error(ErrorKind::kInput, file.path().string(),
                "has a byte-level tokenizer without tokenizer.ggml.merges");
  read_merges(*merges, file.path().string(), d);
  d.bpe.ignore_merges = pre.ignore_merges;
  d.normalizer = pre.normalizer;
  d.pre_tokenizer = pre.pre_tokenizer;
  if (file.get_bool("tokenizer.ggml.add_space_prefix").value_or(false)) {
    throw Error(ErrorKind::kUnsupported, file.path().string(),
                "a byte-level tokenizer with add_space_prefix");
  }
  d.decoder = {{"type", "ByteLevel"},
               {"add_prefix_space", true},
               {"trim_offsets", true},
               {"use_regex", true}};
  context.add_bos = pre.adds_bos;
}

Json replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

void read_sentencepiece_bpe(const GgufFile& file, Tables& tables, TokenizerDescription& d,
                            TokenizerContext& context) {
  const std::string path = file.path().string();
  const std::string architecture = file.architecture();
  const bool gemma = architecture.starts_with("gemma");
  for (std::size_t id = 0; id < tables.tokens.size(); ++id) {
    std::string& token = tables.tokens[id];
    if (gemma &&
        token.find_first_not_of(' ') == std::string::npos) {  // runs of spaces are stored as such
      std::string spelled;
      for (std::size_t i = 0; i < token.size(); ++i) spelled += kMetaspace;
      token = spelled;
    }
    d.vocabulary.set(static_cast<TokenId>(id), token);
  }
  d.bpe = {
      .unk_token = std::nullopt, .fuse_unk = true, .byte_fallback = true, .ignore_merges = false};
  if (const auto unk = file.get_uint("tokenizer.ggml.unknown_token_id");
      unk && *unk < tables.tokens.size())
    d.bpe.unk_token = tables.tokens[*unk];
  if (const auto merges = file.get_strings("tokenizer.ggml.merges")) {
    read_merges(*merges, path, d);
  } else {
    auto scores = file.get_floats("tokenizer.ggml.scores");
    if (!scores || scores->size() != tables.tokens.size()) {
      throw Error(ErrorKind::kInput, path,
                  format("has {} tokens, but {} scores", tables.tokens.size(),
                         scores ? scores->size() : 0));
    }
    for (std::size_t id = 0; id < scores->size(); ++id) {
      if (!std::isfinite((*scores)[id]))
        throw Error(ErrorKind::kInput, path, format("the score of token {} is not finite", id));
      if (gemma)
        (*scores)[id] =
            -static_cast<double>(id);  // its scores do not follow its merge order, its ids do
    }
    d.merges = derive_merges(d.vocabulary, *scores, MergeOrder::kByScore, {});
  }
  const bool prefix = file.get_bool("tokenizer.ggml.add_space_prefix").value_or(!gemma);
  Json decoders =
      Json::array({replace(kMetaspace, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  d.decoder = {{"type", "Sequence"}, {"decoders", decoders}};
  if (architecture == "phi3" && prefix) {
    d.normalizer = {{"type", "Sequence"},
                    {"normalizers",
                     {{{"type", "Prepend"}, {"prepend", kMetaspace}}, replace(" ", kMetaspace)}}};
  } else {
    d.pre_tokenizer = {{"type", "Metaspace"},
                       {"replacement", kMetaspace},
                       {"prepend_scheme", prefix ? "first" : "never"},
                       {"split", false}};
  }
  context.add_bos = true;
}

}  // namespace

TokenizerDescription read_gguf_tokenizer(const GgufFile& file, TokenizerContext& context) {
  Tables tables = read_tables(file);
  const std::string model = file.get_string("tokenizer.ggml.model").value_or("");
  TokenizerDescription d;
  d.source = file.path().string();
  d.vocabulary.reserve(tables.tokens.size());
  if (model == "gpt2") {
    read_byte_level(file, tables, d, context);
  } else if (model == "llama") {
    read_sentencepiece_bpe(file, tables, d, context);
  } else {
    throw Error(ErrorKind::kUnsupported, d.source,
                format("the tokenizer model \"{}\" is not one that we have: gpt2, llama", model));
  }
  add_tokens(tables, d);
  if (model == "llama") mark_llama_tokens(d);
  const auto name = [&](const char* key) -> std::optional<std::string> {
    const auto id = file.get_uint(key);
    if (!id) return std::nullopt;
    if (*id >= tables.tokens.size()) {
      throw Error(ErrorKind::kInput, d.source,
                  format("{} is {}, but there are {} tokens", key, *id, tables.tokens.size()));
    }
    return tables.tokens[*id];
  };
  context.bos_token = name("tokenizer.ggml.bos_token_id");
  context.eos_token = name("tokenizer.ggml.eos_token_id");
  context.unk_token = name("tokenizer.ggml.unknown_token_id");
  context.pad_token = name("tokenizer.ggml.padding_token_id");
  if (const auto add = file.get_bool("tokenizer.ggml.add_bos_token")) context.add_bos = add;
  context.add_eos = file.get_bool("tokenizer.ggml.add_eos_token").value_or(false);
  context.chat_template = file.get_string("tokenizer.chat_template");
  return d;
}

}  // namespace espalier::text
