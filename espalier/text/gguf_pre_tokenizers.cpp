// Table of GGUF pre-tokenizer names. The patterns are those of the tokenizer.json files the names
// stand for.
#include <algorithm>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/component_json_internal.h"
#include "espalier/text/gguf_pre_tokenizers_internal.h"

namespace espalier::text {
namespace {

#define ESPALIER_CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
constexpr const char* kLlama3 = ESPALIER_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 = ESPALIER_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 = ESPALIER_CONTRACTIONS
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)" ESPALIER_CONTRACTIONS
    R"(?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)" ESPALIER_CONTRACTIONS
    R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
#undef ESPALIER_CONTRACTIONS
constexpr const char* kDeepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json split(const char* pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json sequence(std::initializer_list<Json> steps) {
  return {{"type", "Sequence"}, {"pretokenizers", Json(Json::array_t(steps))}};
}

Json digits() { return {{"type", "Digits"}, {"individual_digits", true}}; }

/// The first name of each family is the one we write.
struct Family {
  std::vector<std::string_view> names;
  Json pre_tokenizer;
  Json normalizer;
  bool ignore_merges;
  bool adds_bos;
};

const std::vector<Family>& families() {
  static const std::vector<Family> list = [] {
    const Json none;
    const Json nfc = {{"type", "NFC"}};
    std::vector<Family> all;
    all.push_back({{"gpt-2", "default", "phi-2", "mpt", "olmo", "jais", "gigachat", "mellum",
                    "modern-bert", "trillion", "granite-docling"},
                   byte_level(true),
                   none,
                   false,
                   false});
    all.push_back(
        {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
         sequence({split(kLlama3), byte_level(false)}),
         none,
         true,
         true});
    all.push_back({{"smaug-bpe", "dbrx", "chatglm-bpe"},
                   sequence({split(kLlama3), byte_level(false)}),
                   none,
                   false,
                   false});
    all.push_back(
        {{"glm4", "glm5"}, sequence({split(kLlama3), byte_level(false)}), none, true, false});
    all.push_back({{"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "hunyuan"},
                   sequence({split(kQwen2), byte_level(false)}),
                   nfc,
                   false,
                   false});
    all.push_back(
        {{"stablelm2", "qwen2"}, sequence({split(kQwen2), byte_level(false)}), none, false, false});
    all.push_back({{"qwen35"}, sequence({split(kQwen35), byte_level(false)}), nfc, false, false});
    all.push_back({{"smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"},
                   sequence({digits(), byte_level(true)}),
                   none,
                   false,
                   false});
    all.push_back({{"command-r"}, sequence({digits(), byte_level(true)}), nfc, false, false});
    all.push_back({{"deepseek-coder"},
                   sequence({split("[\r\n]"), split(R"(\s?\p{L}+)"), split(R"(\s?\p{P}+)"),
                             split("[一-龥ࠀ-一가-퟿]+"), digits(), byte_level(false)}),
                   none,
                   false,
                   false});
    all.push_back({{"deepseek-v3"},
                   sequence({split(R"(\p{N}{1,3})"), split("[一-龥぀-ゟ゠-ヿ]+"),
                             split(kDeepseek3), byte_level(false)}),
                   none,
                   false,
                   false});
    all.push_back({{"tekken"}, sequence({split(kTekken), byte_level(false)}), none, true, false});
    all.push_back({{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
                   sequence({split(kGpt4o), byte_level(false)}),
                   none,
                   false,
                   false});
    return all;
  }();
  return list;
}

/// Steps of a component without what does not change ids, so that spellings can be compared.
std::string canonical(const Json& component, const char* list_key) {
  if (component.is_null()) return "";
  if (!component.is_object()) return "?";
  const std::string type = component_type(component, "component");
  std::string out;
  if (type == "Sequence") {
    for (const Json& step : sequence_member(component, list_key, "component"))
      out += canonical(step, list_key);
    return out;
  }
  if (type == "Split") {
    const auto pattern = component.find("pattern");
    return format("Split({} {} {})\n", pattern == component.end() ? "" : pattern->dump(),
                  string_member(component, "behavior", ""),
                  bool_member(component, "invert", false));
  }
  if (type == "ByteLevel") {
    return format("ByteLevel({} {})\n", bool_member(component, "add_prefix_space", true),
                  bool_member(component, "use_regex", true));
  }
  if (type == "Digits")
    return format("Digits({})\n", bool_member(component, "individual_digits", false));
  return component.dump() + "\n";
}

}  // namespace

GgufPreTokenizer gguf_pre_tokenizer(std::string_view name) {
  std::string known;
  for (const Family& family : families()) {
    for (const std::string_view candidate : family.names) {
      if (candidate == name)
        return {candidate, family.pre_tokenizer, family.normalizer, family.ignore_merges,
                family.adds_bos};
      if (known.find(candidate) == std::string::npos)
        known += (known.empty() ? "" : ", ") + std::string(candidate);
    }
  }
  throw Error(ErrorKind::kUnsupported, "tokenizer.ggml.pre",
              format("the pre-tokenizer \"{}\" is not one that we have: {}", name, known))
      .hint("use the model's Hugging Face folder, whose tokenizer.json says how it splits text");
}

std::optional<std::string_view> gguf_pre_tokenizer_name(const Json& pre_tokenizer,
                                                        const Json& normalizer,
                                                        bool ignore_merges) {
  const std::string wanted = canonical(pre_tokenizer, "pretokenizers");
  const std::string wanted_normalizer = canonical(normalizer, "normalizers");
  for (const Family& family : families()) {
    if (canonical(family.pre_tokenizer, "pretokenizers") == wanted &&
        canonical(family.normalizer, "normalizers") == wanted_normalizer &&
        family.ignore_merges == ignore_merges) {
      return family.names.front();
    }
  }
  return std::nullopt;
}

}  // namespace espalier::text
