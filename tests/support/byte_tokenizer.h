// A tokenizer for tests of training rows: every byte is a token of its own, so that ids can be
// read, with a few special tokens and a chat template.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "espalier/base/json_internal.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/text/tokenizer.h"

namespace espalier::testing_support {

inline constexpr TokenId kBos = 256, kEos = 257, kTurnStart = 258, kTurnEnd = 259;

inline std::string utf8(int code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
}

constexpr const char* kChatTemplate =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content | trim + "
    "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' "
    "}}{% endif %}";

enum class Surround : std::uint8_t { kNothing, kBos, kBosAndEos };

/// Byte b of a text has the id b. An empty template leaves the model without one.
inline Tokenizer byte_tokenizer(Surround surround = Surround::kNothing,
                                const std::string& chat_template = kChatTemplate) {
  Json vocab = Json::object();
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    vocab[utf8(printable ? b : next++)] = b;
  }
  const auto special = [](const char* text, TokenId id) {
    return Json{{"id", id},        {"content", text},     {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  Json single = Json::array();
  if (surround != Surround::kNothing)
    single.push_back({{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}});
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (surround == Surround::kBosAndEos)
    single.push_back({{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}});
  const Json post = {{"type", "TemplateProcessing"},
                     {"single", single},
                     {"pair", Json::array()},
                     {"special_tokens",
                      {{"<s>", {{"id", "<s>"}, {"ids", {kBos}}, {"tokens", {"<s>"}}}},
                       {"</s>", {{"id", "</s>"}, {"ids", {kEos}}, {"tokens", {"</s>"}}}}}}};
  const Json json = {{"version", "1.0"},
                     {"added_tokens",
                      {special("<s>", kBos), special("</s>", kEos),
                       special("<|im_start|>", kTurnStart), special("<|im_end|>", kTurnEnd)}},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", byte_level},
                     {"post_processor", surround == Surround::kNothing ? Json() : post},
                     {"decoder", byte_level},
                     {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}}};
  const TempFolder folder;
  folder.write("tokenizer.json", json.dump());
  Json config = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  if (!chat_template.empty()) config["chat_template"] = chat_template;
  folder.write("tokenizer_config.json", config.dump());
  return Tokenizer::from_folder(folder.path());
}

/// Ids of a text whose special tokens are given as bytes \1 (<s>), \2 (</s>), \3 (<|im_start|>) and
/// \4 (<|im_end|>).
inline std::vector<TokenId> ids_of(std::string_view text) {
  std::vector<TokenId> ids;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    ids.push_back(byte >= 1 && byte <= 4 ? kBos + byte - 1 : byte);
  }
  return ids;
}

}  // namespace espalier::testing_support
