// From a TokenizerDescription to a running tokenizer: ids of added tokens, special ids, what
// surrounds a text.
#include <algorithm>
#include <functional>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/component_json_internal.h"
#include "espalier/text/tokenizer_internal.h"

namespace espalier {

std::optional<TokenId> Tokenizer::Impl::find(std::string_view token) const {
  if (const text::AddedToken* found = added.find(token)) return found->id;
  const TokenId id = description.vocabulary.find(token);
  return id >= 0 ? std::optional<TokenId>(id) : std::nullopt;
}

std::string_view Tokenizer::Impl::spelling(TokenId id) const {
  if (const text::AddedToken* found = added.find(id)) return found->content;
  return description.vocabulary.token(id);
}

std::string_view Tokenizer::Impl::decoder_input(TokenId id) const {
  if (const text::AddedToken* found = added.find(id)) return found->decoded;
  return description.vocabulary.token(id);
}

namespace text {
namespace {

constexpr std::string_view kKnownProcessors =
    "Sequence, TemplateProcessing, ByteLevel, RobertaProcessing, BertProcessing";

/// The ids behind a special token of a template: special_tokens[name].ids.
std::vector<TokenId> template_ids(const Json& processor, const std::string& name) {
  const auto table = processor.find("special_tokens");
  if (table == processor.end() || !table->is_object() || !table->contains(name)) {
    throw Error(ErrorKind::kInput, "tokenizer.json",
                format("the template uses \"{}\", which its special_tokens do not list", name));
  }
  std::vector<TokenId> ids;
  for (const Json& id : sequence_member((*table)[name], "ids", "template")) {
    if (!id.is_number_integer())
      throw Error(ErrorKind::kInput, "tokenizer.json",
                  format("an id of \"{}\" is not an integer", name));
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

void read_template(const Json& processor, Surroundings& around) {
  std::vector<TokenId> before, after;
  bool seen_text = false;
  for (const Json& part : sequence_member(processor, "single", "template")) {
    if (part.is_object() && part.contains("Sequence")) {
      if (seen_text)
        throw Error(ErrorKind::kUnsupported, "tokenizer.json", "the template repeats the text");
      seen_text = true;
    } else if (part.is_object() && part.contains("SpecialToken")) {
      const auto ids = template_ids(
          processor, required_string(part["SpecialToken"], "id", "a template's SpecialToken"));
      auto& side = seen_text ? after : before;
      side.insert(side.end(), ids.begin(), ids.end());
    } else {
      throw Error(ErrorKind::kInput, "tokenizer.json",
                  "a template part is neither Sequence nor SpecialToken");
    }
  }
  if (!seen_text)
    throw Error(ErrorKind::kInput, "tokenizer.json", "the template leaves out the text");
  around.before.insert(around.before.begin(), before.begin(), before.end());
  around.after.insert(around.after.end(), after.begin(), after.end());
}

/// ["</s>", 2]
TokenId token_pair_id(const Json& processor, const char* key) {
  const auto pair = processor.find(key);
  if (pair == processor.end() || !pair->is_array() || pair->size() != 2 ||
      !(*pair)[1].is_number_integer()) {
    throw Error(ErrorKind::kInput, "tokenizer.json",
                format("\"{}\" of the post-processor is not a [token, id] pair", key));
  }
  return (*pair)[1].get<TokenId>();
}

void add_processor(const Json& d, int depth, Surroundings& around) {
  if (depth > kMaxComponentDepth)
    throw Error(ErrorKind::kUnsupported, "tokenizer.json",
                "the post-processor is nested too deeply");
  const std::string type = component_type(d, "post-processor");
  if (type == "Sequence") {
    for (const Json& part : sequence_member(d, "processors", "post-processor"))
      add_processor(part, depth + 1, around);
  } else if (type == "TemplateProcessing") {
    read_template(d, around);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    around.before.insert(around.before.begin(), token_pair_id(d, "cls"));
    around.after.push_back(token_pair_id(d, "sep"));
  } else if (type != "ByteLevel") {  // ByteLevel only moves offsets
    refuse_component("post-processor", type, kKnownProcessors);
  }
}

/// Ids as the `tokenizers` package gives them: a token that the model knows keeps its id, others
/// follow the vocabulary. The ids written in the file are not looked at, there and here.
void assign_ids(TokenizerDescription& d) {
  const auto base = static_cast<TokenId>(d.vocabulary.distinct());
  TokenId highest = -1;
  std::unordered_map<std::string, TokenId> given;
  for (AddedToken& token : d.added) {
    if (const TokenId known = d.vocabulary.find(token.content); known >= 0) {
      token.id = known;
    } else if (const auto earlier = given.find(token.content); earlier != given.end()) {
      token.id = earlier->second;
    } else {
      token.id = highest >= base ? highest + 1 : base;
    }
    given[token.content] = token.id;
    highest = std::max(highest, token.id);
  }
}

/// Adds `name` as a special token unless it is one, as transformers does for the tokens its config
/// names.
void add_named(TokenizerDescription& d, const std::optional<std::string>& name) {
  if (!name || name->empty()) return;
  const bool known = std::any_of(d.added.begin(), d.added.end(),
                                 [&](const AddedToken& token) { return token.content == *name; });
  if (!known) d.added.push_back({.content = *name, .special = true, .normalized = false});
}

void check_ids(const std::vector<TokenId>& ids, std::int64_t vocab_size) {
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size) {
      throw Error(ErrorKind::kInput, "tokenizer.json",
                  format("the post-processor adds id {}, but there are {} tokens", id, vocab_size));
    }
  }
}

}  // namespace

Surroundings read_post_processor(const Json& description) {
  Surroundings around;
  if (!description.is_null()) add_processor(description, 0, around);
  return around;
}

std::shared_ptr<const Tokenizer::Impl> make_tokenizer(TokenizerDescription description,
                                                      TokenizerContext context) {
  auto impl = std::make_shared<Tokenizer::Impl>();
  for (const auto* name :
       {&context.bos_token, &context.eos_token, &context.unk_token, &context.pad_token})
    add_named(description, *name);
  assign_ids(description);
  impl->description = std::move(description);
  TokenizerDescription& d = impl->description;
  impl->normalizer = Normalizer(d.normalizer);
  impl->pre_tokenizer = PreTokenizer(d.pre_tokenizer);
  impl->decoder = Decoder(d.decoder);
  impl->added = AddedTokens(d.added, impl->normalizer);
  impl->vocab_size = static_cast<std::int64_t>(d.vocabulary.size());
  for (const AddedToken& token : d.added)
    impl->vocab_size = std::max<std::int64_t>(impl->vocab_size, token.id + 1);
  if (d.model == TokenizerDescription::Model::kBpe) {
    impl->bpe.emplace(d.vocabulary, std::move(d.merges), d.bpe);
    d.merges.clear();
  } else {
    impl->unigram.emplace(d.vocabulary, std::move(d.scores), d.unk_id, d.unigram_byte_fallback);
    d.scores.clear();
  }
  impl->surroundings = read_post_processor(d.post_processor);
  check_ids(impl->surroundings.before, impl->vocab_size);
  check_ids(impl->surroundings.after, impl->vocab_size);
  const auto look_up = [&](const std::optional<std::string>& token) {
    return token ? impl->find(*token) : std::nullopt;
  };
  impl->bos = look_up(context.bos_token);
  impl->eos = look_up(context.eos_token);
  impl->pad = look_up(context.pad_token);
  impl->unk = look_up(context.unk_token);
  if (!impl->unk && d.bpe.unk_token) impl->unk = impl->find(*d.bpe.unk_token);
  if (!impl->unk && d.unk_id) impl->unk = d.unk_id;
  if (context.add_bos || context.add_eos) {
    impl->surroundings = {};
    if (context.add_bos.value_or(false) && impl->bos) impl->surroundings.before = {*impl->bos};
    if (context.add_eos.value_or(false) && impl->eos) impl->surroundings.after = {*impl->eos};
  }
  if (!impl->bos && !context.bos_token && !impl->surroundings.before.empty())
    impl->bos = impl->surroundings.before.front();
  impl->chat_template = std::move(context.chat_template);
  return impl;
}

}  // namespace text
}  // namespace espalier
