// Text <-> token ids: byte-level BPE, SentencePiece-style BPE and unigram, from tokenizer.json,
// tokenizer.model or GGUF metadata. Ids equal those of the `tokenizers` package / transformers'
// fast tokenizers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

class GgufFile;

using TokenId = std::int32_t;

enum class AddBos : std::uint8_t {
  kAuto,
  kOn,
  kOff
};  // kAuto: what the tokenizer's own settings say

struct EncodeOptions {
  /// Adds what the post-processor adds (BOS, EOS, template) when true; nothing when false.
  bool add_special_tokens = false;
  /// Special tokens written in the text ("<|im_end|>") become their ids, as in transformers; false
  /// takes them as letters.
  bool special_in_text = true;
};

/// Immutable and thread-safe after construction.
class Tokenizer {
 public:
  /// From a model folder: tokenizer.json, else tokenizer.model (SentencePiece);
  /// tokenizer_config.json and special_tokens_map.json for BOS/EOS. Throws Error(kInput) on a
  /// broken file, Error(kUnsupported) naming the component we do not have.
  static Tokenizer from_folder(const std::filesystem::path& folder);
  static Tokenizer from_json(std::string_view tokenizer_json,
                             std::string_view source = "tokenizer.json");
  static Tokenizer from_sentencepiece(const std::filesystem::path& model_file);
  static Tokenizer from_gguf(const GgufFile& file);
  /// `model` located by io/hf_folder.h: folder or GGUF.
  static Tokenizer load(const std::filesystem::path& folder_or_gguf);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// Any bytes are accepted; invalid UTF-8 is treated as the `tokenizers` package does after
  /// replacement by U+FFFD. Cost O(n log n); a multi-megabyte text is fine in one call.
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options = {}) const;
  /// Exact inverse for byte-level models. Ids out of range throw Error(kInput).
  std::string decode(std::span<const TokenId> ids, bool skip_special_tokens = false) const;

  /// Ids are 0..vocab_size-1 (added tokens included); gaps are possible and decode to "".
  std::int64_t vocab_size() const;
  std::optional<TokenId> token_to_id(std::string_view token) const;
  /// The token's stored spelling (byte-level letters, not text); "" for gaps.
  std::string_view id_to_token(TokenId id) const;
  bool is_special(TokenId id) const;

  std::optional<TokenId> bos() const;
  std::optional<TokenId> eos() const;
  std::optional<TokenId> pad() const;
  std::optional<TokenId> unk() const;
  /// Whether encode(..., add_special_tokens=true) puts BOS in front.
  bool adds_bos() const;
  /// Jinja source of the chat template found beside the tokenizer, if any.
  const std::optional<std::string>& chat_template() const;

  /// A tokenizer.json / GGUF-neutral description for `convert` (see text/export.h).
  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit Tokenizer(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
  friend class StreamDecoder;
};

/// Turns a stream of ids into text pieces; the pieces joined equal decode() of all ids. Holds back
/// bytes of an unfinished UTF-8 sequence, and of SentencePiece byte tokens the whole run (its
/// validity decides how it is shown).
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  /// Text that became certain with this id; may be empty. Ids out of range throw Error(kInput).
  std::string push(TokenId id);
  /// What is left (incomplete sequences become U+FFFD); then the decoder is ready for another text.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace espalier
