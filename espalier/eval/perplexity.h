// Perplexity of a decoder on a text, by the protocols of the pruning literature (spec 2.5).
#pragma once

#include <cstdint>

#include "espalier/base/reporter.h"
#include "espalier/data/token_segments.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier {

struct PerplexityOptions {
  std::int64_t seq_len = 2048;
  std::int64_t stride = 0;         // 0: segments do not overlap; else windows advance by stride and only new tokens count
  std::int64_t max_segments = 0;   // 0: all
  bool add_bos = false;            // BOS in front of every segment (the segment keeps seq_len tokens of text)
  std::int64_t batch_tokens = 1024;
};

struct PerplexityResult {
  double perplexity = 0, nll = 0;      // exp(mean NLL), mean NLL in nats per predicted token
  double perplexity_stderr = 0, nll_stderr = 0;  // over segments, delta method for perplexity
  std::int64_t tokens = 0;             // predicted tokens
  std::int64_t segments = 0;
  double seconds = 0;
};

/// exp(sum NLL / predicted tokens). The score does not depend on batch_tokens (bit-equal on CPU, tested).
/// NaN losses throw Error(kInput) naming the segment.
PerplexityResult perplexity(const Decoder& model, const TokenText& text, const PerplexityOptions& options, TokenId bos,
                            Reporter& reporter, const StopToken& stop = never_stop());

}  // namespace espalier
