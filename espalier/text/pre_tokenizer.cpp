// Pre-tokenizer steps. Each step pushes its parts straight into the next one: no lists of words are
// kept.
#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/byte_level_internal.h"
#include "espalier/text/component_json_internal.h"
#include "espalier/text/pre_tokenizer_internal.h"
#include "espalier/text/regex_internal.h"
#include "espalier/text/split_behaviour_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr std::string_view kKnown =
    "Sequence, ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation, "
    "BertPreTokenizer, CharDelimiterSplit";
// The words of GPT-2: contractions, letters, numbers, the rest, and white space without its last
// character.
constexpr std::string_view kByteLevelPattern =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Splits by regular expression or literal text.
class Split : public PreTokenizerStep {
 public:
  Split(Regex pattern, SplitBehaviour behaviour, bool invert)
      : pattern_(std::move(pattern)), behaviour_(behaviour), invert_(invert) {}
  void split(const Piece& piece, const PieceSink& sink) const override {
    Splitter splitter(piece, behaviour_, invert_, sink);
    pattern_.for_each_match(
        piece.text, [&](std::size_t begin, std::size_t end) { splitter.match(begin, end); });
    splitter.finish();
  }

 private:
  Regex pattern_;
  SplitBehaviour behaviour_;
  bool invert_;
};

/// Splits at every character that a predicate accepts.
template <class Predicate>
class SplitAt : public PreTokenizerStep {
 public:
  SplitAt(Predicate predicate, SplitBehaviour behaviour)
      : predicate_(predicate), behaviour_(behaviour) {}
  void split(const Piece& piece, const PieceSink& sink) const override {
    Splitter splitter(piece, behaviour_, false, sink);
    for (std::size_t pos = 0; pos < piece.text.size();) {
      const std::size_t length = utf8_length(static_cast<unsigned char>(piece.text[pos]));
      if (predicate_(utf8_decode(piece.text, pos))) splitter.match(pos, pos + length);
      pos += length;
    }
    splitter.finish();
  }

 private:
  Predicate predicate_;
  SplitBehaviour behaviour_;
};

template <class Predicate>
std::shared_ptr<const PreTokenizerStep> split_at(Predicate predicate, SplitBehaviour behaviour) {
  return std::make_shared<SplitAt<Predicate>>(predicate, behaviour);
}

class PrefixSpace : public PreTokenizerStep {
 public:
  void split(const Piece& piece, const PieceSink& sink) const override {
    if (piece.text.starts_with(' ')) {
      sink(piece);
    } else {
      const std::string text = " " + std::string(piece.text);
      sink({text, piece.at_start});
    }
  }
};

/// ByteLevel somewhere before the end: later steps see the letters.
class SpellBytes : public PreTokenizerStep {
 public:
  void split(const Piece& piece, const PieceSink& sink) const override {
    const std::string text = to_byte_letters(piece.text);
    sink({text, piece.at_start});
  }
};

enum class PrependScheme : std::uint8_t { kFirst, kAlways, kNever };

class Metaspace : public PreTokenizerStep {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}
  void split(const Piece& piece, const PieceSink& sink) const override {
    std::string text;
    text.reserve(piece.text.size() + 16);
    for (const char c : piece.text) c == ' ' ? text.append(replacement_) : text.append(1, c);
    const bool wanted =
        scheme_ == PrependScheme::kAlways || (scheme_ == PrependScheme::kFirst && piece.at_start);
    if (wanted && !text.starts_with(replacement_)) text.insert(0, replacement_);
    if (!split_) {
      sink({text, piece.at_start});
      return;
    }
    const Piece whole{text, piece.at_start};
    Splitter splitter(whole, SplitBehaviour::kMergedWithNext, false, sink);
    for (std::size_t hit = text.find(replacement_); hit != std::string::npos;
         hit = text.find(replacement_, hit + replacement_.size())) {
      splitter.match(hit, hit + replacement_.size());
    }
    splitter.finish();
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

std::shared_ptr<const PreTokenizerStep> make_metaspace(const Json& d) {
  const std::string replacement = string_member(d, "replacement", "\xE2\x96\x81");
  if (replacement.empty() ||
      utf8_length(static_cast<unsigned char>(replacement[0])) != replacement.size()) {
    throw Error(ErrorKind::kInput, "tokenizer.json",
                "the replacement of Metaspace is not one character");
  }
  const bool legacy_prefix = bool_member(d, "add_prefix_space", true);
  const std::string scheme = string_member(d, "prepend_scheme", legacy_prefix ? "always" : "never");
  if (scheme != "first" && scheme != "always" && scheme != "never") {
    throw Error(ErrorKind::kInput, "tokenizer.json",
                format("prepend_scheme is \"{}\", expected first, always or never", scheme));
  }
  const auto value = scheme == "first"    ? PrependScheme::kFirst
                     : scheme == "always" ? PrependScheme::kAlways
                                          : PrependScheme::kNever;
  return std::make_shared<Metaspace>(replacement, value, bool_member(d, "split", true));
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& description) {
  if (!description.is_null()) add(description, 0);
}

void PreTokenizer::add(const Json& d, int depth) {
  if (depth > kMaxComponentDepth || steps_.size() > kMaxComponentSteps) {
    throw Error(ErrorKind::kUnsupported, "tokenizer.json", "the pre-tokenizer has too many steps");
  }
  if (spells_bytes_) {  // something follows a ByteLevel after all
    spells_bytes_ = false;
    steps_.push_back(std::make_shared<SpellBytes>());
  }
  const std::string type = component_type(d, "pre-tokenizer");
  const auto split_on = [&](const char* pattern, SplitBehaviour behaviour, bool invert) {
    steps_.push_back(std::make_shared<Split>(Regex(pattern), behaviour, invert));
  };
  if (type == "Sequence") {
    for (const Json& part : sequence_member(d, "pretokenizers", "pre-tokenizer"))
      add(part, depth + 1);
  } else if (type == "ByteLevel") {
    if (bool_member(d, "add_prefix_space", true)) steps_.push_back(std::make_shared<PrefixSpace>());
    if (bool_member(d, "use_regex", true))
      split_on(kByteLevelPattern.data(), SplitBehaviour::kIsolated, false);
    spells_bytes_ = true;
  } else if (type == "Split") {
    steps_.push_back(std::make_shared<Split>(
        pattern_member(d, "Split"), parse_split_behaviour(required_string(d, "behavior", "Split")),
        bool_member(d, "invert", false)));
  } else if (type == "Digits") {
    steps_.push_back(split_at(is_numeric, bool_member(d, "individual_digits", false)
                                              ? SplitBehaviour::kIsolated
                                              : SplitBehaviour::kContiguous));
  } else if (type == "Metaspace") {
    steps_.push_back(make_metaspace(d));
  } else if (type == "Whitespace") {
    // Rust's \w holds the joiners, Oniguruma's does not.
    split_on(R"([\w\x{200c}\x{200d}]+|[^\w\s\x{200c}\x{200d}]+)", SplitBehaviour::kRemoved, true);
  } else if (type == "WhitespaceSplit") {
    steps_.push_back(split_at(is_whitespace, SplitBehaviour::kRemoved));
  } else if (type == "Punctuation") {
    steps_.push_back(
        split_at(is_punctuation, parse_split_behaviour(string_member(d, "behavior", "Isolated"))));
  } else if (type == "BertPreTokenizer") {
    steps_.push_back(split_at(is_whitespace, SplitBehaviour::kRemoved));
    steps_.push_back(split_at(is_punctuation, SplitBehaviour::kIsolated));
  } else if (type == "CharDelimiterSplit") {
    const std::string delimiter = required_string(d, "delimiter", "CharDelimiterSplit");
    steps_.push_back(
        std::make_shared<Split>(Regex::literal(delimiter), SplitBehaviour::kRemoved, false));
  } else {
    refuse_component("pre-tokenizer", type, kKnown);
  }
}

void PreTokenizer::run(std::size_t index, const Piece& piece, const PieceSink& sink) const {
  if (index == steps_.size()) {
    sink(piece);
  } else {
    // One captured pointer fits into std::function without an allocation, which matters once per
    // word.
    const struct {
      const PreTokenizer* self;
      std::size_t next;
      const PieceSink& sink;
    } rest{this, index + 1, sink};
    steps_[index]->split(
        piece, [&rest](const Piece& part) { rest.self->run(rest.next, part, rest.sink); });
  }
}

}  // namespace espalier::text
