// tokenizer_config.json, special_tokens_map.json and chat template files: which tokens are BOS,
// EOS, ..., and whether they are put around a text.
#include <map>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/text/component_json_internal.h"
#include "espalier/text/tokenizer_internal.h"

namespace espalier::text {
namespace {

constexpr std::uint64_t kMaxConfigBytes = 64ull << 20;

/// "<s>" or {"content": "<s>", ...}; null when absent.
std::optional<std::string> token_text(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object()) return string_member(*found, "content", {});
  throw Error(ErrorKind::kInput, "tokenizer_config.json",
              format("\"{}\" is {}, expected a string or an object", key, found->type_name()));
}

void read_names(const Json& config, TokenizerContext& context) {
  const auto set = [&](const char* key, std::optional<std::string>& slot, bool keep) {
    if (auto token = token_text(config, key); token && !(keep && slot)) slot = std::move(token);
  };
  set("bos_token", context.bos_token, false);
  set("eos_token", context.eos_token, false);
  set("unk_token", context.unk_token, false);
  set("pad_token", context.pad_token, false);
}

std::optional<std::string> template_of(const Json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return std::nullopt;
  std::optional<std::string> first;
  for (const Json& entry : *found) {  // [{"name": "default", "template": "..."}, ...]
    if (!entry.is_object()) continue;
    const std::string name = string_member(entry, "name", {});
    const std::string source = string_member(entry, "template", {});
    if (name == "default") return source;
    if (!first) first = source;
  }
  return first;
}

/// added_tokens_decoder: {"151643": {"content": ..., "special": ...}}: tokens that tokenizer.json
/// may lack.
void add_decoder_tokens(const Json& config, TokenizerDescription& d) {
  const auto table = config.find("added_tokens_decoder");
  if (table == config.end() || !table->is_object()) return;
  std::map<std::string, bool> known;
  for (const AddedToken& token : d.added) known[token.content] = true;
  std::map<std::int64_t, AddedToken> missing;
  for (const auto& [id, entry] : table->items()) {
    if (!entry.is_object() || id.empty() || id.size() > 9 ||
        id.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(ErrorKind::kInput, "tokenizer_config.json",
                  format("added_tokens_decoder has a malformed entry \"{}\"", id));
    }
    AddedToken token;
    token.content = string_member(entry, "content", {});
    token.special = bool_member(entry, "special", false);
    token.normalized = bool_member(entry, "normalized", !token.special);
    token.lstrip = bool_member(entry, "lstrip", false);
    token.rstrip = bool_member(entry, "rstrip", false);
    token.single_word = bool_member(entry, "single_word", false);
    if (!token.content.empty() && !known.contains(token.content))
      missing.emplace(std::stoll(id), std::move(token));
  }
  for (auto& [id, token] : missing) d.added.push_back(std::move(token));
}

std::optional<bool> optional_flag(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  return bool_member(config, key, false);
}

}  // namespace

void read_tokenizer_config(const std::filesystem::path& folder, TokenizerDescription& description,
                           TokenizerContext& context) {
  const auto read = [&](const char* name) {
    const auto path = folder / name;
    const Json json = std::filesystem::is_regular_file(path) ? read_json_file(path, kMaxConfigBytes)
                                                             : Json::object();
    if (!json.is_object()) throw Error(ErrorKind::kInput, path.string(), "expected a JSON object");
    return json;
  };
  const Json map = read("special_tokens_map.json");
  const Json config = read("tokenizer_config.json");
  read_names(map, context);
  read_names(config, context);
  add_decoder_tokens(config, description);
  if (const auto add_bos = optional_flag(config, "add_bos_token")) context.add_bos = add_bos;
  if (const auto add_eos = optional_flag(config, "add_eos_token")) context.add_eos = add_eos;
  context.chat_template = template_of(config);
  if (const auto path = folder / "chat_template.jinja"; std::filesystem::is_regular_file(path)) {
    context.chat_template = read_file(path, kMaxConfigBytes);
  } else if (!context.chat_template) {
    context.chat_template = template_of(read("chat_template.json"));
  }
}

}  // namespace espalier::text
