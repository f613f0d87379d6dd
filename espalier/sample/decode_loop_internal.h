// The parts of decoding that a single text and a conversation share.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "espalier/sample/sampler.h"

namespace espalier::sample_internal {

/// Error(kUsage) for values out of range, all of them at once.
void check_options(const SamplingOptions& options);

/// Appends `ids` to the cache, in pieces; logits [vocab] of the token after them. Throws
/// Interrupted on a stop request between pieces.
at::Tensor prefill(const Decoder& model, std::span<const TokenId> ids, KvCache& cache,
                   const StopToken& stop);

enum class OnStop : std::uint8_t {
  kThrow,  // Interrupted
  kEnd,    // the text ends there, for the reason "interrupted"
};

/// Draws tokens from `logits` on, each appended to the cache but the last one, until something ends
/// it; fills in everything of `out` but the prompt's figures. `prompt` is what the cache holds: it
/// runs again when the text grows past a length up to which the cached keys serve.
void decode(const Decoder& model, const Tokenizer& tokenizer, std::span<const TokenId> prompt,
            at::Tensor logits, KvCache& cache, const SamplingOptions& options, RandomStream& random,
            const std::function<void(std::string_view)>& on_text, const StopToken& stop,
            OnStop on_stop, Generation& out);

}  // namespace espalier::sample_internal
