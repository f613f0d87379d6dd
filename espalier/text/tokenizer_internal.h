// What a Tokenizer is made of, and the neutral description that every file format is read into.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "espalier/base/json_internal.h"
#include "espalier/text/added_tokens_internal.h"
#include "espalier/text/bpe_internal.h"
#include "espalier/text/decoder_internal.h"
#include "espalier/text/normalizer_internal.h"
#include "espalier/text/pre_tokenizer_internal.h"
#include "espalier/text/tokenizer.h"
#include "espalier/text/unigram_internal.h"
#include "espalier/text/vocabulary_internal.h"

namespace espalier::text {

/// A tokenizer as tokenizer.json describes one. The components stay as they were written, so that
/// they can be written again; the vocabulary, which is large, is held in its run-time form.
struct TokenizerDescription {
  enum class Model : std::uint8_t { kBpe, kUnigram };

  std::string source;  // for messages
  Model model = Model::kBpe;
  Vocabulary vocabulary;         // without added tokens that the model does not know
  std::vector<BpeMerge> merges;  // in rank order
  BpeSettings bpe;
  std::vector<double> scores;     // Unigram
  std::optional<TokenId> unk_id;  // Unigram
  bool unigram_byte_fallback = false;

  Json normalizer, pre_tokenizer, post_processor, decoder;
  std::vector<AddedToken> added;  // ids are assigned by make_tokenizer when -1
};

/// What surrounds a tokenizer in its folder or file.
struct TokenizerContext {
  std::optional<std::string> bos_token, eos_token, unk_token, pad_token;
  std::optional<bool> add_bos, add_eos;  // set: they replace the post-processor
  std::optional<std::string> chat_template;
};

/// The ids put around a text.
struct Surroundings {
  std::vector<TokenId> before, after;
};

}  // namespace espalier::text

namespace espalier {

struct Tokenizer::Impl {
  text::TokenizerDescription description;
  text::Normalizer normalizer;
  text::PreTokenizer pre_tokenizer;
  text::Decoder decoder;
  text::AddedTokens added;
  std::optional<text::Bpe> bpe;
  std::optional<text::Unigram> unigram;
  text::Surroundings surroundings;
  std::int64_t vocab_size = 0;
  std::optional<TokenId> bos, eos, unk, pad;
  std::optional<std::string> chat_template;

  std::optional<TokenId> find(std::string_view token) const;
  /// As stored; "" for gaps.
  std::string_view spelling(TokenId id) const;
  /// As the decoder takes it.
  std::string_view decoder_input(TokenId id) const;
};

namespace text {

/// Builds the run-time parts. Throws as the component constructors do.
std::shared_ptr<const Tokenizer::Impl> make_tokenizer(TokenizerDescription description,
                                                      TokenizerContext context = {});

/// Reads the text of a tokenizer.json.
TokenizerDescription read_tokenizer_json(std::string_view json, std::string_view source);
/// Reads a SentencePiece model file's bytes.
TokenizerDescription read_sentencepiece(std::string_view bytes, std::string_view source,
                                        TokenizerContext& context);
/// Reads the tokenizer.* metadata of a GGUF file.
TokenizerDescription read_gguf_tokenizer(const GgufFile& file, TokenizerContext& context);
/// tokenizer_config.json, special_tokens_map.json and the template files beside a tokenizer; adds
/// the tokens they name.
void read_tokenizer_config(const std::filesystem::path& folder, TokenizerDescription& description,
                           TokenizerContext& context);

/// What the post-processor puts around a single text.
Surroundings read_post_processor(const Json& description);

}  // namespace text
}  // namespace espalier
