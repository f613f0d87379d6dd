// Perplexity of a decoder on a text, by the protocols of the pruning literature (spec 2.5).
#pragma once

#include <cstdint>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/data/token_segments.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier {

struct PerplexityOptions {
  std::int64_t seq_len = 2048;
  std::int64_t stride =
      0;  // 0: segments do not overlap; else windows advance by stride and only new tokens count
  std::int64_t max_segments = 0;  // 0: all
  bool add_bos = false;  // BOS in front of every segment (the segment keeps seq_len tokens of text)
  std::int64_t batch_tokens = 1024;
};

struct PerplexityResult {
  double perplexity = 0, nll = 0;  // exp(mean NLL), mean NLL in nats per predicted token
  double perplexity_stderr = 0, nll_stderr = 0;  // over segments, delta method for perplexity
  std::int64_t tokens = 0;                       // predicted tokens
  std::int64_t segments = 0;
  double seconds = 0;
  std::vector<double> segment_nll;           // summed NLL of each segment
  std::vector<std::int64_t> segment_tokens;  // predicted tokens of each segment
};

/// How many tokens of text `options` will read; 0 when it reads all there are. For
/// load_token_text's early stop.
std::int64_t perplexity_text_tokens(const PerplexityOptions& options);

/// exp(sum NLL / predicted tokens).
///
/// Without stride the text is cut into segments of seq_len tokens and each predicts its tokens but
/// the first (with add_bos: all of them). With stride, windows of seq_len tokens start every
/// `stride` tokens, the last one ends with the text, and a window counts only tokens that no
/// earlier window predicted. `bos` is used only with add_bos. The score does not depend on
/// batch_tokens (bit-equal on CPU, tested). Works on streamed models, which read their weights once
/// per batch. NaN losses throw Error(kInput) naming the segment; Error(kUsage) for sizes out of
/// range. Memory O(batch_tokens * (vocab chunk + d)). After a stop request: Interrupted, nothing
/// saved.
PerplexityResult perplexity(const Decoder& model, const TokenText& text,
                            const PerplexityOptions& options, TokenId bos, Reporter& reporter,
                            const StopToken& stop = never_stop());

/// The same for rows already cut: ids [segments, seq_len] int64 on the CPU; options.stride and
/// max_segments are ignored.
PerplexityResult perplexity(const Decoder& model, const at::Tensor& ids,
                            const PerplexityOptions& options, TokenId bos, Reporter& reporter,
                            const StopToken& stop = never_stop());

}  // namespace espalier
