// Tokenizer: the pipeline added tokens -> normalizer -> pre-tokenizer -> model, with a cache of
// words.
#include "espalier/text/tokenizer.h"

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/io/gguf.h"
#include "espalier/io/hf_folder.h"
#include "espalier/text/byte_level_internal.h"
#include "espalier/text/encode_internal.h"
#include "espalier/text/tokenizer_internal.h"
#include "espalier/text/utf8_internal.h"
#include "espalier/text/word_cache_internal.h"

namespace espalier {
namespace {

/// One call of encode: the words of one text into ids.
class WordEncoder {
 public:
  WordEncoder(const Tokenizer::Impl& impl, std::size_t text_bytes, std::vector<TokenId>& out)
      : impl_(impl), out_(out), cache_(text_bytes) {}

  void operator()(std::string_view word) {
    if (const auto hit = cache_.find(word); !hit.empty()) {
      out_.insert(out_.end(), hit.begin(), hit.end());
      return;
    }
    const std::size_t first = out_.size();
    if (impl_.pre_tokenizer.spells_bytes()) {
      encode_spelled(text::to_byte_letters(word));
    } else {
      encode_spelled(word);
    }
    cache_.insert(word, std::span<const TokenId>(out_).subspan(first));
  }

 private:
  void encode_spelled(std::string_view word) {
    impl_.bpe ? impl_.bpe->encode(word, out_) : impl_.unigram->encode(word, out_);
  }

  const Tokenizer::Impl& impl_;
  std::vector<TokenId>& out_;
  text::WordCache cache_;
};

constexpr std::string_view kMetaspace = "\xE2\x96\x81";

/// Cuts in front of every "▁" that follows another character; only where Bpe::splits_at_metaspace()
/// says that no id changes. SentencePiece texts come as one word otherwise, and nothing could be
/// cached.
void encode_metaspace_words(std::string_view word, WordEncoder& encode) {
  std::size_t begin = 0;
  for (std::size_t hit = word.find(kMetaspace, 1); hit != std::string_view::npos;
       hit = word.find(kMetaspace, hit + kMetaspace.size())) {
    if (word.substr(0, hit).ends_with(kMetaspace)) continue;
    encode(word.substr(begin, hit - begin));
    begin = hit;
  }
  encode(word.substr(begin));
}

void encode_into(const Tokenizer::Impl& impl, std::string_view text,
                 const text::SpecialTokenRule& rule, std::vector<TokenId>& out) {
  WordEncoder encode_word(impl, text.size(), out);
  const bool cut =
      impl.bpe && impl.bpe->splits_at_metaspace() && !impl.pre_tokenizer.spells_bytes();
  const text::PieceSink sink = [&](const text::Piece& piece) {
    cut ? encode_metaspace_words(piece.text, encode_word) : encode_word(piece.text);
  };
  impl.added.split(text, impl.normalizer, rule,
                   [&](std::string_view part, TokenId id, bool at_start) {
                     if (id >= 0) {
                       out.push_back(id);
                     } else {
                       impl.pre_tokenizer.split({part, at_start}, sink);
                     }
                   });
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view source) {
  return Tokenizer(text::make_tokenizer(text::read_tokenizer_json(tokenizer_json, source)));
}

Tokenizer Tokenizer::from_sentencepiece(const std::filesystem::path& model_file) {
  text::TokenizerContext context;
  auto description =
      text::read_sentencepiece(read_file(model_file, 1ull << 30), model_file.string(), context);
  return Tokenizer(text::make_tokenizer(std::move(description), std::move(context)));
}

Tokenizer Tokenizer::from_gguf(const GgufFile& file) {
  text::TokenizerContext context;
  auto description = text::read_gguf_tokenizer(file, context);
  return Tokenizer(text::make_tokenizer(std::move(description), std::move(context)));
}

Tokenizer Tokenizer::from_folder(const std::filesystem::path& folder) {
  const auto json = folder / "tokenizer.json";
  const auto model = folder / "tokenizer.model";
  text::TokenizerContext context;
  text::TokenizerDescription description;
  if (std::filesystem::is_regular_file(json)) {
    description = text::read_tokenizer_json(read_file(json, 1ull << 30), json.string());
  } else if (std::filesystem::is_regular_file(model)) {
    description = text::read_sentencepiece(read_file(model, 1ull << 30), model.string(), context);
  } else {
    throw Error(ErrorKind::kInput, folder.string(),
                "no tokenizer.json and no tokenizer.model in this folder")
        .hint("copy the tokenizer files of the original model into it");
  }
  text::read_tokenizer_config(folder, description, context);
  return Tokenizer(text::make_tokenizer(std::move(description), std::move(context)));
}

Tokenizer Tokenizer::load(const std::filesystem::path& folder_or_gguf) {
  // A folder that holds only a tokenizer is no model, but all that is needed here.
  if (std::filesystem::is_directory(folder_or_gguf)) return from_folder(folder_or_gguf);
  const ModelLocation location = locate_model(folder_or_gguf.string());
  return location.kind == ModelLocation::Kind::kGguf ? from_gguf(GgufFile::open(location.path))
                                                     : from_folder(location.path);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<TokenId> out;
  out.reserve(text.size() / 4 + 8);
  if (options.add_special_tokens) out = impl_->surroundings.before;
  std::string repaired;
  if (!text::is_valid_utf8(text)) {
    repaired = text::to_valid_utf8(text);
    text = repaired;
  }
  encode_into(*impl_, text, {.recognise = options.special_in_text}, out);
  if (options.add_special_tokens)
    out.insert(out.end(), impl_->surroundings.after.begin(), impl_->surroundings.after.end());
  return out;
}

std::vector<TokenId> text::encode_marked(const Tokenizer::Impl& impl, std::string_view text,
                                         const Marks& marks) {
  std::vector<TokenId> out;
  encode_into(impl, text, {.recognise = true, .marks = &marks}, out);
  return out;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special_tokens) const {
  text::Decoder::Run run(impl_->decoder);
  std::string out;
  for (const TokenId id : ids) {
    if (id < 0 || id >= impl_->vocab_size) {
      throw Error(ErrorKind::kInput, "token id",
                  format("{} is outside the vocabulary of {} tokens", id, impl_->vocab_size));
    }
    const std::string_view token = impl_->decoder_input(id);
    if (token.empty() || (skip_special_tokens && impl_->added.is_special(id))) continue;
    out += run.push(token);
  }
  return out + run.finish();
}

std::int64_t Tokenizer::vocab_size() const { return impl_->vocab_size; }
std::optional<TokenId> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->find(token);
}
std::string_view Tokenizer::id_to_token(TokenId id) const { return impl_->spelling(id); }
bool Tokenizer::is_special(TokenId id) const { return impl_->added.is_special(id); }
std::optional<TokenId> Tokenizer::bos() const { return impl_->bos; }
std::optional<TokenId> Tokenizer::eos() const { return impl_->eos; }
std::optional<TokenId> Tokenizer::pad() const { return impl_->pad; }
std::optional<TokenId> Tokenizer::unk() const { return impl_->unk; }
const std::optional<std::string>& Tokenizer::chat_template() const { return impl_->chat_template; }

bool Tokenizer::adds_bos() const {
  const auto& before = impl_->surroundings.before;
  return impl_->bos && !before.empty() && before.front() == *impl_->bos;
}

}  // namespace espalier
