// StreamDecoder: the tokenizer's own decoder, run one token at a time.
#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/tokenizer.h"
#include "espalier/text/tokenizer_internal.h"

namespace espalier {

struct StreamDecoder::State {
  std::shared_ptr<const Tokenizer::Impl> impl;
  bool skip_special;
  text::Decoder::Run run;
};

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : state_(new State{tokenizer.impl_, skip_special_tokens,
                       text::Decoder::Run(tokenizer.impl_->decoder)}) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(TokenId id) {
  const Tokenizer::Impl& impl = *state_->impl;
  if (id < 0 || id >= impl.vocab_size) {
    throw Error(ErrorKind::kInput, "token id",
                format("{} is outside the vocabulary of {} tokens", id, impl.vocab_size));
  }
  const std::string_view token = impl.decoder_input(id);
  if (token.empty() || (state_->skip_special && impl.added.is_special(id))) return {};
  return state_->run.push(token);
}

std::string StreamDecoder::finish() {
  std::string rest = state_->run.finish();
  state_->run = text::Decoder::Run(state_->impl->decoder);
  return rest;
}

}  // namespace espalier
