// Reading tokenizer.json: the model's vocabulary and merges, and the components as they stand.
#include <algorithm>
#include <cmath>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/component_json_internal.h"
#include "espalier/text/tokenizer_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

// Not Json: an order-preserving object looks keys up one by one, which is quadratic for a
// vocabulary of 150,000 words.
using SortedJson = nlohmann::json;

constexpr int kMaxDepth = 64;

[[noreturn]] void fail(std::string_view source, std::string_view what) {
  throw Error(ErrorKind::kInput, source, what);
}

SortedJson parse(std::string_view text, std::string_view source) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth)
        fail(source, format("JSON is nested deeper than {} levels", kMaxDepth));
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  try {
    return SortedJson::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kInput, source,
                format("not valid JSON: {}", to_valid_utf8(error.what())))
        .hint("download the file again; it may be cut off or a Git LFS pointer");
  }
}

Json component(const SortedJson& root, const char* key) {
  const auto found = root.find(key);
  return found == root.end() ? Json() : Json::parse(found->dump());
}

const SortedJson& member(const SortedJson& object, const char* key, SortedJson::value_t type,
                         std::string_view source, const char* wanted) {
  const auto found = object.find(key);
  if (found == object.end()) fail(source, format("the model has no \"{}\"", key));
  if (found->type() != type)
    fail(source, format("\"{}\" is {}, expected {}", key, found->type_name(), wanted));
  return *found;
}

bool flag(const SortedJson& object, const char* key, bool fallback, std::string_view source) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  if (!found->is_boolean())
    fail(source, format("\"{}\" is {}, expected true or false", key, found->type_name()));
  return found->get<bool>();
}

std::optional<std::string> text_member(const SortedJson& object, const char* key,
                                       std::string_view source) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  if (!found->is_string())
    fail(source, format("\"{}\" is {}, expected a string", key, found->type_name()));
  return found->get<std::string>();
}

TokenId token_id(const SortedJson& value, std::string_view what, std::string_view source) {
  if (!value.is_number_integer())
    fail(source, format("the id of {} is {}, expected an integer", what, value.type_name()));
  const auto id = value.get<std::int64_t>();
  if (id < 0 || id > 0x7FFFFFFE)
    fail(source, format("the id of {} is {}, expected 0 to 2^31 - 2", what, id));
  return static_cast<TokenId>(id);
}

std::pair<std::string_view, std::string_view> merge_parts(const SortedJson& merge,
                                                          std::string_view source,
                                                          std::size_t rank) {
  if (merge.is_string()) {
    const std::string_view line = merge.get_ref<const std::string&>();
    const std::size_t space = line.find(' ');
    if (space != std::string_view::npos && line.find(' ', space + 1) == std::string_view::npos)
      return {line.substr(0, space), line.substr(space + 1)};
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
             merge[1].is_string()) {
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  }
  fail(source, format("merge {} is not a pair of tokens", rank));
}

void read_bpe(const SortedJson& model, TokenizerDescription& d) {
  const auto refuse = [&](const char* key) {
    if (const auto value = text_member(model, key, d.source); value && !value->empty()) {
      throw Error(ErrorKind::kUnsupported, d.source,
                  format("a BPE model with {} \"{}\"", key, *value));
    }
  };
  refuse("continuing_subword_prefix");
  refuse("end_of_word_suffix");
  const SortedJson& vocab =
      member(model, "vocab", SortedJson::value_t::object, d.source, "an object");
  // Ids ascending, so that the check for wild ids in Vocabulary sees the honest ones first.
  std::vector<std::pair<TokenId, const std::string*>> entries;
  entries.reserve(vocab.size());
  for (const auto& [token, id] : vocab.items())
    entries.emplace_back(token_id(id, format("\"{}\"", token), d.source), &token);
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  d.vocabulary.reserve(entries.size());
  for (const auto& [id, token] : entries) d.vocabulary.set(id, *token);

  d.bpe.unk_token = text_member(model, "unk_token", d.source);
  d.bpe.fuse_unk = flag(model, "fuse_unk", false, d.source);
  d.bpe.byte_fallback = flag(model, "byte_fallback", false, d.source);
  d.bpe.ignore_merges = flag(model, "ignore_merges", false, d.source);
  const SortedJson& merges =
      member(model, "merges", SortedJson::value_t::array, d.source, "a list");
  d.merges.reserve(merges.size());
  std::string joined;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    if (merges[rank].is_string() &&
        merges[rank].get_ref<const std::string&>().starts_with("#version"))
      continue;
    const auto [left, right] = merge_parts(merges[rank], d.source, rank);
    joined.assign(left).append(right);
    const BpeMerge merge{d.vocabulary.find(left), d.vocabulary.find(right),
                         d.vocabulary.find(joined)};
    if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
      const auto missing = merge.left < 0    ? left
                           : merge.right < 0 ? right
                                             : std::string_view(joined);
      fail(d.source,
           format("merge {} needs the token \"{}\", which the vocabulary lacks", rank, missing));
    }
    d.merges.push_back(merge);
  }
}

void read_unigram(const SortedJson& model, TokenizerDescription& d) {
  const SortedJson& vocab = member(model, "vocab", SortedJson::value_t::array, d.source, "a list");
  d.vocabulary.reserve(vocab.size());
  d.scores.reserve(vocab.size());
  for (std::size_t id = 0; id < vocab.size(); ++id) {
    const SortedJson& entry = vocab[id];
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      fail(d.source, format("piece {} is not a [text, score] pair", id));
    }
    const double score = entry[1].get<double>();
    if (!std::isfinite(score)) fail(d.source, format("the score of piece {} is not finite", id));
    d.vocabulary.set(static_cast<TokenId>(id), entry[0].get<std::string>());
    d.scores.push_back(score);
  }
  if (const auto unk = model.find("unk_id"); unk != model.end() && !unk->is_null())
    d.unk_id = token_id(*unk, "the unknown token", d.source);
  d.unigram_byte_fallback = flag(model, "byte_fallback", false, d.source);
}

void read_added_tokens(const SortedJson& root, TokenizerDescription& d) {
  const auto list = root.find("added_tokens");
  if (list == root.end() || list->is_null()) return;
  if (!list->is_array())
    fail(d.source, format("\"added_tokens\" is {}, expected a list", list->type_name()));
  for (const SortedJson& entry : *list) {
    if (!entry.is_object()) fail(d.source, "an added token is not an object");
    AddedToken token;
    const auto content = text_member(entry, "content", d.source);
    if (!content) fail(d.source, "an added token has no \"content\"");
    token.content = *content;
    token.special = flag(entry, "special", false, d.source);
    token.normalized = flag(entry, "normalized", !token.special, d.source);
    token.lstrip = flag(entry, "lstrip", false, d.source);
    token.rstrip = flag(entry, "rstrip", false, d.source);
    token.single_word = flag(entry, "single_word", false, d.source);
    d.added.push_back(std::move(token));
  }
}

}  // namespace

TokenizerDescription read_tokenizer_json(std::string_view json, std::string_view source) {
  const SortedJson root = parse(json, source);
  if (!root.is_object()) fail(source, format("holds {}, expected an object", root.type_name()));
  TokenizerDescription d;
  d.source = source;
  const auto model = root.find("model");
  if (model == root.end() || !model->is_object()) fail(source, "has no \"model\" object");
  std::string type = text_member(*model, "type", source).value_or("");
  if (type.empty())
    type = model->contains("merges")                                  ? "BPE"
           : model->contains("vocab") && (*model)["vocab"].is_array() ? "Unigram"
                                                                      : "without a type";
  if (type == "BPE") {
    read_bpe(*model, d);
  } else if (type == "Unigram") {
    d.model = TokenizerDescription::Model::kUnigram;
    read_unigram(*model, d);
  } else {
    throw Error(ErrorKind::kUnsupported, source,
                format("the model \"{}\" is not one that we have: BPE, Unigram", type));
  }
  d.normalizer = component(root, "normalizer");
  d.pre_tokenizer = component(root, "pre_tokenizer");
  d.post_processor = component(root, "post_processor");
  d.decoder = component(root, "decoder");
  read_added_tokens(root, d);
  return d;
}

}  // namespace espalier::text
