// The named pre-tokenizers of GGUF files as tokenizer.json components, both ways.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/json_internal.h"

namespace espalier::text {

struct GgufPreTokenizer {
  std::string_view name;       // tokenizer.ggml.pre
  Json pre_tokenizer;          // ends in ByteLevel
  Json normalizer;             // null for most
  bool ignore_merges = false;  // whole words of the vocabulary win over merges
  bool adds_bos = false;       // when the file does not say
};

/// Throws Error(kUnsupported) with the list of names that we have.
GgufPreTokenizer gguf_pre_tokenizer(std::string_view name);

/// The name for a tokenizer.json whose components are these; nullopt when GGUF has no name for
/// them. Ids would change under a wrong name, so only known spellings of each pattern are
/// recognised.
std::optional<std::string_view> gguf_pre_tokenizer_name(const Json& pre_tokenizer,
                                                        const Json& normalizer, bool ignore_merges);

}  // namespace espalier::text
