// Log-likelihoods of continuations after contexts, as multiple-choice tasks ask for them, and of
// whole pages in rolling windows (spec 2.5, lm-eval's semantics).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "espalier/base/reporter.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/text/tokenizer.h"

namespace espalier {

/// Neither is empty; an empty text in front is one BOS or EOS token.
struct LikelihoodRequest {
  std::vector<TokenId> context, continuation;
};

struct Likelihood {
  double log_likelihood = 0;  // nats, summed over the continuation's tokens
  bool greedy = false;  // no token of the vocabulary was ever likelier than the continuation's
};

struct LikelihoodOptions {
  /// Tokens that a forward pass may see; of longer ones the last max_length are taken.
  std::int64_t max_length = 2048;
  std::int64_t batch_tokens = 2048;  // per forward pass, at least one request
  /// CUDA only, on the CPU it always holds: passes of shapes that follow from a request's own
  /// length, filled up with padding.
  bool batch_invariant = true;
  bool share = true;        // off: every request runs by itself
  bool rectangles = false;  // on the CPU too; a CUDA device knows nothing else
};

struct LikelihoodStats {
  double seconds = 0;
  std::int64_t request_tokens = 0;  // what one pass per request would run
  std::int64_t forward_tokens = 0;  // what ran, padding included: equal contexts run once
  std::int64_t truncated = 0;       // requests whose context was cut on the left
};

/// One result per request, in their order.
///
/// On the CPU equal contexts run once and their continuations go on from them; rows are packed,
/// longest first, up to batch_tokens, and a result does not depend on which requests share its pass
/// (bit-equal, tested). On a CUDA device equal rows (answers of one token) run once, and rows are
/// padded on the right to rectangles. Products choose their kernels by shape there, so results
/// depend on it in the last bits; with batch_invariant the shape follows from a row's own length
/// and batch_tokens. That costs padding: rows to multiples of 16 tokens (64 beyond 256), the last
/// pass of each width to its full height. The head runs on continuations only, its softmax in
/// float32. Works on streamed models, which read their weights once per pass.
///
/// Throws Error(kInput) for a continuation longer than max_length, for token ids outside the
/// vocabulary and for likelihoods that are not finite (naming the request); after a stop request:
/// Interrupted. Memory O(batch_tokens * d) and the head's chunks.
std::vector<Likelihood> log_likelihoods(const Decoder& model,
                                        std::span<const LikelihoodRequest> requests,
                                        const LikelihoodOptions& options, Reporter& reporter,
                                        const StopToken& stop = never_stop(),
                                        LikelihoodStats* stats = nullptr);

/// Log-likelihood of each page, cut as rolling_requests says; 0 for an empty one.
std::vector<double> rolling_log_likelihoods(const Decoder& model,
                                            std::span<const std::vector<TokenId>> pages,
                                            TokenId prefix, const LikelihoodOptions& options,
                                            Reporter& reporter,
                                            const StopToken& stop = never_stop(),
                                            LikelihoodStats* stats = nullptr);

/// A page as windows: the first predicts max_length tokens after `prefix`; each later one the next
/// max_length tokens after the one token before them; the last, where fewer are left, sees the
/// tokens before them too, so that its input is max_length long (lm-eval's rolling windows with a
/// context of 1, made disjoint). Empty for an empty page.
std::vector<LikelihoodRequest> rolling_requests(std::span<const TokenId> page, TokenId prefix,
                                                std::int64_t max_length);

}  // namespace espalier
