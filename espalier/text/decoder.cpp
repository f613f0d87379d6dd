// Decoder steps as streaming stages. Definitions are those of the `tokenizers` package.
#include <algorithm>
#include <optional>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/byte_level_internal.h"
#include "espalier/text/component_json_internal.h"
#include "espalier/text/decoder_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier::text {
namespace {

constexpr std::string_view kKnown =
    "Sequence, ByteLevel, Metaspace, ByteFallback, Fuse, Replace, Strip";
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

class Stage : public DecoderSink {
 public:
  explicit Stage(DecoderSink& next) : next_(next) {}
  void finish() override { next_.finish(); }

 protected:
  DecoderSink& next_;
};

/// For steps that must see a token as a whole: of a fused input nothing is certain before its end.
class TokenStage : public Stage {
 public:
  TokenStage(DecoderSink& next, bool fused) : Stage(next), fused_(fused) {}
  void put(std::string_view text) final {
    fused_ ? static_cast<void>(held_.append(text)) : token(text);
  }
  void finish() final {
    if (fused_) token(held_);
    end();
    next_.finish();
  }

 protected:
  virtual void token(std::string_view text) = 0;
  virtual void end() {}

 private:
  bool fused_;
  std::string held_;
};

/// Byte letters to bytes, bytes to characters; an unfinished character is held back.
class ByteLevelStage : public TokenStage {
 public:
  using TokenStage::TokenStage;

 protected:
  void token(std::string_view text) override {
    if (!append_from_byte_letters(held_, text)) held_.append(text);
    emit(false);
  }
  void end() override { emit(true); }

 private:
  void emit(bool last) {
    std::string ready;
    std::size_t pos = 0;
    std::size_t length = 0;
    for (; pos < held_.size(); pos += length) {
      const Utf8Start kind = classify_utf8(held_, pos, length);
      if (kind == Utf8Start::kIncomplete && !last) break;
      kind == Utf8Start::kCharacter ? ready.append(held_, pos, length) : ready.append(kReplacement);
    }
    held_.erase(0, pos);
    if (!ready.empty()) next_.put(ready);
  }
  std::string held_;
};

/// Runs of <0xXX> tokens become their text, or one U+FFFD per byte when the run as a whole is not
/// valid UTF-8. So a run is held back until it ends.
class ByteFallbackStage : public TokenStage {
 public:
  using TokenStage::TokenStage;

 protected:
  void token(std::string_view text) override {
    if (const auto byte = parse(text)) {
      bytes_.push_back(*byte);
      return;
    }
    end();
    next_.put(text);
  }
  void end() override {
    if (bytes_.empty()) return;
    if (is_valid_utf8(bytes_)) {
      next_.put(bytes_);
    } else {
      for (std::size_t i = 0; i < bytes_.size(); ++i) next_.put(kReplacement);
    }
    bytes_.clear();
  }

 private:
  static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  }
  static std::optional<char> parse(std::string_view text) {
    if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
    const int high = hex(text[3]);
    const int low = hex(text[4]);
    if (high < 0 || low < 0) return std::nullopt;
    return static_cast<char>(high * 16 + low);
  }
  std::string bytes_;
};

class FuseStage : public Stage {
 public:
  using Stage::Stage;
  void put(std::string_view text) override { next_.put(text); }
};

/// The replacement character becomes a space, except in the first token of a tokenizer that
/// prepends one.
class MetaspaceStage : public Stage {
 public:
  MetaspaceStage(DecoderSink& next, bool fused, const std::string& replacement, bool drop_first)
      : Stage(next), fused_(fused), replacement_(replacement), drop_(drop_first) {}
  void put(std::string_view text) override {
    std::string out;
    std::size_t pos = 0;
    for (std::size_t hit = text.find(replacement_); hit != std::string_view::npos;
         hit = text.find(replacement_, pos)) {
      out.append(text.substr(pos, hit - pos));
      if (!drop_) out.push_back(' ');
      pos = hit + replacement_.size();
    }
    drop_ = drop_ && fused_;
    next_.put(out.append(text.substr(pos)));
  }

 private:
  bool fused_;
  const std::string& replacement_;
  bool drop_;
};

class ReplaceStage : public TokenStage {
 public:
  ReplaceStage(DecoderSink& next, bool fused, const Regex& pattern, const std::string& content)
      : TokenStage(next, fused), pattern_(pattern), content_(content) {}

 protected:
  void token(std::string_view text) override {
    std::string out;
    std::size_t pos = 0;
    pattern_.for_each_match(text, [&](std::size_t begin, std::size_t end) {
      out.append(text.substr(pos, begin - pos)).append(content_);
      pos = end;
    });
    next_.put(out.append(text.substr(pos)));
  }

 private:
  const Regex& pattern_;
  const std::string& content_;
};

/// Takes up to `left` and `right` copies of a character from the ends of each token.
class StripStage : public Stage {
 public:
  StripStage(DecoderSink& next, bool fused, const std::string& content, std::size_t left,
             std::size_t right)
      : Stage(next),
        fused_(fused),
        content_(content),
        left_(left),
        right_(right),
        left_now_(left) {}
  void put(std::string_view text) override {
    if (!fused_) left_now_ = left_;
    while (left_now_ > 0 && text.starts_with(content_)) {
      text.remove_prefix(content_.size());
      --left_now_;
    }
    if (!text.empty()) left_now_ = 0;
    if (fused_ && right_ > 0) {  // the tail is known at the end only
      held_.append(text);
    } else {
      next_.put(strip_right(text));
    }
  }
  void finish() override {
    if (!held_.empty()) next_.put(strip_right(held_));
    next_.finish();
  }

 private:
  std::string_view strip_right(std::string_view text) const {
    for (std::size_t i = 0; i < right_ && text.ends_with(content_); ++i)
      text.remove_suffix(content_.size());
    return text;
  }
  bool fused_;
  const std::string& content_;
  std::size_t left_, right_;
  std::size_t left_now_;
  std::string held_;
};

/// No decoder at all: tokens joined with spaces.
class JoinStage : public Stage {
 public:
  using Stage::Stage;
  void put(std::string_view text) override {
    next_.put(first_ ? std::string(text) : " " + std::string(text));
    first_ = false;
  }

 private:
  bool first_ = true;
};

/// A step that is a function from the next sink to a stage; owns what its stages refer to.
template <class Start>
class Step : public DecoderStep {
 public:
  explicit Step(Start start) : start_(std::move(start)) {}
  std::unique_ptr<DecoderSink> start(DecoderSink& next) const override { return start_(next); }

 private:
  Start start_;
};

template <class Start>
std::shared_ptr<const DecoderStep> make_step(Start start) {
  return std::make_shared<Step<Start>>(std::move(start));
}

}  // namespace

Decoder::Decoder(const Json& description) {
  if (!description.is_null()) add(description, 0);
}

void Decoder::add(const Json& d, int depth) {
  if (depth > kMaxComponentDepth || steps_.size() > kMaxComponentSteps) {
    throw Error(ErrorKind::kUnsupported, "tokenizer.json", "the decoder has too many steps");
  }
  const std::string type = component_type(d, "decoder");
  const bool fused = fused_;
  if (type == "Sequence") {
    for (const Json& part : sequence_member(d, "decoders", "decoder")) add(part, depth + 1);
  } else if (type == "ByteLevel") {
    steps_.push_back(make_step(
        [fused](DecoderSink& next) { return std::make_unique<ByteLevelStage>(next, fused); }));
    fused_ = true;
  } else if (type == "ByteFallback") {
    steps_.push_back(make_step(
        [fused](DecoderSink& next) { return std::make_unique<ByteFallbackStage>(next, fused); }));
  } else if (type == "Fuse") {
    steps_.push_back(
        make_step([](DecoderSink& next) { return std::make_unique<FuseStage>(next); }));
    fused_ = true;
  } else if (type == "Metaspace") {
    const bool prepends =
        string_member(d, "prepend_scheme",
                      bool_member(d, "add_prefix_space", true) ? "always" : "never") != "never";
    const std::string replacement = string_member(d, "replacement", "\xE2\x96\x81");
    if (replacement.empty())
      throw Error(ErrorKind::kInput, "tokenizer.json", "the replacement of Metaspace is empty");
    steps_.push_back(make_step([=](DecoderSink& next) {
      return std::make_unique<MetaspaceStage>(next, fused, replacement, prepends);
    }));
  } else if (type == "Replace") {
    std::string literal;
    const bool one_character =
        is_literal_pattern(d, &literal) && !literal.empty() &&
        utf8_length(static_cast<unsigned char>(literal[0])) == literal.size();
    steps_.push_back(make_step([pattern = pattern_member(d, "Replace"),
                                content = required_string(d, "content", "Replace"),
                                hold = fused && !one_character](DecoderSink& next) {
      return std::make_unique<ReplaceStage>(next, hold, pattern, content);
    }));
  } else if (type == "Strip") {
    const std::string content = required_string(d, "content", "Strip");
    const auto start = int_member(d, "start", 0);
    const auto stop = int_member(d, "stop", 0);
    if (content.empty() || start < 0 || stop < 0)
      throw Error(ErrorKind::kInput, "tokenizer.json",
                  "the Strip decoder has an empty content or a negative count");
    steps_.push_back(make_step([=](DecoderSink& next) {
      return std::make_unique<StripStage>(next, fused, content, static_cast<std::size_t>(start),
                                          static_cast<std::size_t>(stop));
    }));
  } else {
    refuse_component("decoder", type, kKnown);
  }
}

struct Decoder::Run::Output : DecoderSink {
  std::string text;
  void put(std::string_view part) override { text.append(part); }
  void finish() override {}
  std::string take() { return std::exchange(text, {}); }
};

Decoder::Run::Run(const Decoder& decoder)
    : output_(std::make_unique<Output>()), first_(output_.get()) {
  for (std::size_t i = decoder.steps_.size(); i-- > 0;) {
    stages_.push_back(decoder.steps_[i]->start(*first_));
    first_ = stages_.back().get();
  }
  if (decoder.steps_.empty()) {
    stages_.push_back(std::make_unique<JoinStage>(*first_));
    first_ = stages_.back().get();
  }
}

Decoder::Run::~Run() = default;
Decoder::Run::Run(Run&&) noexcept = default;
Decoder::Run& Decoder::Run::operator=(Run&&) noexcept = default;

std::string Decoder::Run::push(std::string_view token) {
  first_->put(token);
  return output_->take();
}

std::string Decoder::Run::finish() {
  first_->finish();
  return output_->take();
}

}  // namespace espalier::text
