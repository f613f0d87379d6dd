// A GGUF file's tokenizer as the files that transformers' AutoTokenizer loads.
#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/text/export.h"
#include "espalier/text/tokenizer_internal.h"

namespace espalier {
namespace {

using text::AddedToken;

std::string json_text(std::string_view text) { return Json(std::string(text)).dump(); }

std::string added_tokens_json(const Tokenizer::Impl& impl) {
  std::vector<AddedToken> tokens = impl.added.tokens();
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  std::string out = "[";
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    const Json entry = {
        {"id", token.id},          {"content", token.content}, {"single_word", token.single_word},
        {"lstrip", token.lstrip},  {"rstrip", token.rstrip},   {"normalized", token.normalized},
        {"special", token.special}};
    out += (out.size() > 1 ? ",\n    " : "\n    ") + entry.dump();
  }
  return out + "\n  ]";
}

/// Written piece by piece: an ordered JSON object of 150,000 keys would take quadratic time to
/// build.
std::string model_json(const Tokenizer::Impl& impl) {
  const auto& vocabulary = impl.description.vocabulary;
  const text::BpeSettings& settings = impl.description.bpe;
  std::string out = "{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n";
  out += format("    \"unk_token\": {},\n",
                settings.unk_token ? json_text(*settings.unk_token) : "null");
  out += "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n";
  out += format(
      "    \"fuse_unk\": {},\n    \"byte_fallback\": {},\n    \"ignore_merges\": {},\n    "
      "\"vocab\": {{",
      settings.fuse_unk, settings.byte_fallback, settings.ignore_merges);
  bool first = true;
  for (std::size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const auto token = vocabulary.token(id);
    if (token.empty() || vocabulary.find(token) != id) continue;
    out += format("{}\n      {}: {}", first ? "" : ",", json_text(token), id);
    first = false;
  }
  out += "\n    },\n    \"merges\": [";
  first = true;
  for (const text::BpeMerge& merge : impl.bpe->merges()) {
    out += format("{}\n      [{}, {}]", first ? "" : ",", json_text(vocabulary.token(merge.left)),
                  json_text(vocabulary.token(merge.right)));
    first = false;
  }
  return out + "\n    ]\n  }";
}

Json post_processor(const Tokenizer::Impl& impl) {
  const auto& around = impl.surroundings;
  if (around.before.empty() && around.after.empty()) {
    if (!impl.pre_tokenizer.spells_bytes()) return Json();
    return {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", false},
            {"use_regex", true}};
  }
  Json single = Json::array();
  Json pair = Json::array();
  Json special = Json::object();
  const auto add = [&](TokenId id, int type_id) {
    const std::string token(impl.spelling(id));
    special[token] = {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
    const Json part = {{"SpecialToken", {{"id", token}, {"type_id", type_id}}}};
    if (type_id == 0) single.push_back(part);
    pair.push_back(part);
  };
  const auto text_part = [](const char* name, int type_id) {
    return Json{{"Sequence", {{"id", name}, {"type_id", type_id}}}};
  };
  for (const TokenId id : around.before) add(id, 0);
  single.push_back(text_part("A", 0));
  pair.push_back(text_part("A", 0));
  for (const TokenId id : around.after) add(id, 0);
  for (const TokenId id : around.before) add(id, 1);
  pair.push_back(text_part("B", 1));
  for (const TokenId id : around.after) add(id, 1);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", special}};
}

std::string tokenizer_json(const Tokenizer::Impl& impl) {
  const auto& d = impl.description;
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n";
  out += "  \"added_tokens\": " + added_tokens_json(impl) + ",\n";
  out += "  \"normalizer\": " + d.normalizer.dump() + ",\n";
  out += "  \"pre_tokenizer\": " + d.pre_tokenizer.dump() + ",\n";
  out += "  \"post_processor\": " + post_processor(impl).dump() + ",\n";
  out += "  \"decoder\": " + d.decoder.dump() + ",\n";
  return out + "  \"model\": " + model_json(impl) + "\n}\n";
}

}  // namespace

void write_hf_tokenizer(const GgufFile& file, const std::filesystem::path& folder) {
  const Tokenizer tokenizer = Tokenizer::from_gguf(file);
  const Tokenizer::Impl& impl = tokenizer.impl();
  write_file_atomically(folder / "tokenizer.json", tokenizer_json(impl));
  Json names = Json::object();
  const auto name = [&](const char* key, std::optional<TokenId> id) {
    if (id) names[key] = std::string(impl.spelling(*id));
  };
  name("bos_token", impl.bos);
  name("eos_token", impl.eos);
  name("unk_token", impl.unk);
  name("pad_token", impl.pad);
  write_file_atomically(folder / "special_tokens_map.json", dump_json(names));
  // The general class takes tokenizer.json as it stands; the class of a model family may put its
  // own parts in place.
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false}};
  config.update(names);
  const auto length = file.get_uint(file.architecture() + ".context_length");
  if (length) config["model_max_length"] = *length;
  write_file_atomically(folder / "tokenizer_config.json", dump_json(config));
  if (impl.chat_template)
    write_file_atomically(folder / "chat_template.jinja", *impl.chat_template);
}

}  // namespace espalier
