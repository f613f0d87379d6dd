// Choosing the next token, and the loop around it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/random.h"
#include "espalier/base/reporter.h"
#include "espalier/models/decoder/decoder.h"
#include "espalier/text/tokenizer.h"

namespace espalier {

struct SamplingOptions {
  double temperature = 0;  // 0 = greedy
  std::int64_t top_k = 0;  // 0 = all
  double top_p = 1.0;
  std::int64_t max_new_tokens = 128;
  std::uint64_t seed = 0;
  std::vector<std::string> stop;  // generation ends before the first of these in the text
  std::vector<TokenId> end_ids;   // end the text besides the model's own; a chat's end of turn
  bool ignore_eos = false;
};

/// One token from logits [vocab] float32: temperature, then top-k, then top-p as in transformers'
/// warpers; greedy ties go to the lowest id. NaN logits throw Error(kInput).
TokenId sample_token(const at::Tensor& logits, const SamplingOptions& options,
                     RandomStream& random);

struct Generation {
  std::string text;
  std::vector<TokenId>
      token_ids;              // new tokens only, without EOS; with those that spelled a stop string
  std::string finish_reason;  // "eos", "stop", "length", "context"; "interrupted" in conversations
  std::int64_t prompt_tokens = 0;
  double prefill_seconds = 0, decode_seconds = 0;
};

/// Prefills the prompt, then decodes with a KV cache. `on_text` receives text as it becomes certain
/// (stop strings are held back). Throws Interrupted on a stop request.
Generation generate(const Decoder& model, const Tokenizer& tokenizer,
                    const std::vector<TokenId>& prompt, const SamplingOptions& options,
                    const std::function<void(std::string_view)>& on_text = {},
                    const StopToken& stop = never_stop());

}  // namespace espalier
