// Normalizer steps. Definitions are those of the `tokenizers` package.
#include <cstdlib>

#include <utf8proc.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/base64_internal.h"
#include "espalier/text/byte_level_internal.h"
#include "espalier/text/component_json_internal.h"
#include "espalier/text/normalizer_internal.h"
#include "espalier/text/precompiled_charsmap_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr std::string_view kKnown =
    "Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, "
    "BertNormalizer, ByteLevel, Nmt, Precompiled";
constexpr std::uint64_t kMaxTextBytes = 1ull << 33;

class Prepend : public NormalizerStep {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string apply(std::string_view text) const override {
    if (text.empty()) return {};
    return prefix_ + std::string(text);
  }

 private:
  std::string prefix_;
};

class ReplaceLiteral : public NormalizerStep {
 public:
  ReplaceLiteral(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  std::string apply(std::string_view text) const override {
    std::string out;
    out.reserve(text.size());
    std::size_t pos = 0;
    for (std::size_t hit = text.find(from_); hit != std::string_view::npos;
         hit = text.find(from_, pos)) {
      out.append(text.substr(pos, hit - pos)).append(to_);
      pos = hit + from_.size();
      if (out.size() > kMaxTextBytes)
        throw Error(ErrorKind::kResource, "normalizer", "the replaced text is larger than 8 GiB");
    }
    return out.append(text.substr(pos));
  }

 private:
  std::string from_, to_;
};

class ReplaceRegex : public NormalizerStep {
 public:
  ReplaceRegex(Regex pattern, std::string to) : pattern_(std::move(pattern)), to_(std::move(to)) {}
  std::string apply(std::string_view text) const override {
    std::string out;
    out.reserve(text.size());
    std::size_t pos = 0;
    pattern_.for_each_match(text, [&](std::size_t begin, std::size_t end) {
      out.append(text.substr(pos, begin - pos)).append(to_);
      pos = end;
      if (out.size() > kMaxTextBytes)
        throw Error(ErrorKind::kResource, "normalizer", "the replaced text is larger than 8 GiB");
    });
    return out.append(text.substr(pos));
  }

 private:
  Regex pattern_;
  std::string to_;
};

class UnicodeForm : public NormalizerStep {
 public:
  explicit UnicodeForm(int options) : options_(static_cast<utf8proc_option_t>(options)) {}
  std::string apply(std::string_view text) const override {
    bool ascii = true;
    for (const char c : text) ascii &= static_cast<unsigned char>(c) < 0x80;
    if (ascii) return std::string(text);
    utf8proc_uint8_t* mapped = nullptr;
    const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &mapped, options_);
    if (size < 0)
      throw Error(ErrorKind::kResource, "normalizer",
                  format("Unicode normalisation failed: {}", utf8proc_errmsg(size)));
    std::string out(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(size));
    std::free(mapped);
    return out;
  }

 private:
  utf8proc_option_t options_;
};

/// Maps each character to text of its own.
template <class PerCharacter>
class CharacterMap : public NormalizerStep {
 public:
  explicit CharacterMap(PerCharacter map) : map_(std::move(map)) {}
  std::string apply(std::string_view text) const override {
    std::string out;
    out.reserve(text.size());
    for (std::size_t pos = 0; pos < text.size();
         pos += utf8_length(static_cast<unsigned char>(text[pos]))) {
      map_(out, utf8_decode(text, pos));
    }
    return out;
  }

 private:
  PerCharacter map_;
};

template <class PerCharacter>
std::shared_ptr<const NormalizerStep> character_map(PerCharacter map) {
  return std::make_shared<CharacterMap<PerCharacter>>(std::move(map));
}

class Strip : public NormalizerStep {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  std::string apply(std::string_view text) const override {
    while (left_ && !text.empty() && is_whitespace(utf8_decode(text, 0))) {
      text.remove_prefix(utf8_length(static_cast<unsigned char>(text[0])));
    }
    while (right_ && !text.empty()) {
      const std::size_t last = utf8_previous(text, text.size());
      if (!is_whitespace(utf8_decode(text, last))) break;
      text = text.substr(0, last);
    }
    return std::string(text);
  }

 private:
  bool left_, right_;
};

class Precompiled : public NormalizerStep {
 public:
  explicit Precompiled(PrecompiledCharsmap map) : map_(std::move(map)) {}
  std::string apply(std::string_view text) const override { return map_.apply(text); }

 private:
  PrecompiledCharsmap map_;
};

class ByteLetters : public NormalizerStep {
 public:
  std::string apply(std::string_view text) const override { return to_byte_letters(text); }
};

void clean_bert(std::string& out, char32_t code) {
  if (code == 0 || code == 0xFFFD || is_control(code)) return;
  is_whitespace(code) ? out.push_back(' ') : utf8_append(out, code);
}

void space_cjk(std::string& out, char32_t code) {
  if (is_cjk(code)) out.push_back(' ');
  utf8_append(out, code);
  if (is_cjk(code)) out.push_back(' ');
}

void drop_nonspacing(std::string& out, char32_t code) {
  if (utf8proc_category(static_cast<utf8proc_int32_t>(code)) != UTF8PROC_CATEGORY_MN)
    utf8_append(out, code);
}

void nmt(std::string& out, char32_t code) {
  const bool dropped = (code >= 1 && code <= 8) || code == 0x0B || (code >= 0x0E && code <= 0x1F) ||
                       code == 0x7F || code == 0x8F || code == 0x9F;
  if (dropped) return;
  const bool space = code == 9 || code == 10 || code == 12 || code == 13 || code == 0x1680 ||
                     (code >= 0x200B && code <= 0x200F) || code == 0x2028 || code == 0x2029 ||
                     code == 0x2581 || code == 0xFEFF || code == 0xFFFD;
  space ? out.push_back(' ') : utf8_append(out, code);
}

constexpr int kCompose = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
constexpr int kDecompose = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;

}  // namespace

Normalizer::Normalizer(const Json& description) {
  if (!description.is_null()) add(description, 0);
}

void Normalizer::add(const Json& d, int depth) {
  if (depth > kMaxComponentDepth || steps_.size() > kMaxComponentSteps) {
    throw Error(ErrorKind::kUnsupported, "tokenizer.json", "the normalizer has too many steps");
  }
  const std::string type = component_type(d, "normalizer");
  const auto push = [&](auto step) {
    steps_.push_back(std::make_shared<decltype(step)>(std::move(step)));
  };
  if (type == "Sequence") {
    for (const Json& part : sequence_member(d, "normalizers", "normalizer")) add(part, depth + 1);
  } else if (type == "Prepend") {
    push(Prepend(required_string(d, "prepend", "Prepend")));
  } else if (type == "Replace") {
    std::string literal;
    const std::string content = required_string(d, "content", "Replace");
    if (is_literal_pattern(d, &literal)) {
      if (!literal.empty()) push(ReplaceLiteral(literal, content));
    } else {
      push(ReplaceRegex(pattern_member(d, "Replace"), content));
    }
  } else if (type == "NFC" || type == "NFKC") {
    push(UnicodeForm(kCompose | (type == "NFKC" ? UTF8PROC_COMPAT : 0)));
  } else if (type == "NFD" || type == "NFKD") {
    push(UnicodeForm(kDecompose | (type == "NFKD" ? UTF8PROC_COMPAT : 0)));
  } else if (type == "Lowercase") {
    steps_.push_back(character_map(append_lowercase));
  } else if (type == "Strip") {
    push(Strip(bool_member(d, "strip_left", true), bool_member(d, "strip_right", true)));
  } else if (type == "StripAccents") {
    steps_.push_back(character_map([](std::string& out, char32_t code) {
      if (!is_combining_mark(code)) utf8_append(out, code);
    }));
  } else if (type == "Nmt") {
    steps_.push_back(character_map(nmt));
  } else if (type == "ByteLevel") {
    push(ByteLetters());
  } else if (type == "Precompiled") {
    push(Precompiled(PrecompiledCharsmap(
        base64_decode(required_string(d, "precompiled_charsmap", "Precompiled")))));
  } else if (type == "BertNormalizer") {
    const bool lower = bool_member(d, "lowercase", true);
    if (bool_member(d, "clean_text", true)) steps_.push_back(character_map(clean_bert));
    if (bool_member(d, "handle_chinese_chars", true)) steps_.push_back(character_map(space_cjk));
    if (bool_member(d, "strip_accents", lower)) {
      push(UnicodeForm(kDecompose));
      steps_.push_back(character_map(drop_nonspacing));
    }
    if (lower) steps_.push_back(character_map(append_lowercase));
  } else {
    refuse_component("normalizer", type, kKnown);
  }
}

std::string Normalizer::apply(std::string_view text) const {
  std::string current(text);
  for (const auto& step : steps_) current = step->apply(current);
  return current;
}

}  // namespace espalier::text
