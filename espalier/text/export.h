// Tokenizers between formats: the tokenizer metadata of a GGUF file from a Hugging Face folder and
// back.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "espalier/io/gguf.h"

namespace espalier {

/// The keys under tokenizer.ggml (model, pre, tokens, token_type, merges or scores, special ids,
/// add_bos_token, add_space_prefix) and tokenizer.chat_template for the tokenizer in `folder`.
/// `vocab_size` is the number of embedding rows; missing tokens are filled as "[PADn]" of type
/// unused. `architecture` is the file's: readers take the merge order of gemma's from the ids.
/// Throws Error(kUnsupported) when the pre-tokenizer has no GGUF name.
std::vector<std::pair<std::string, GgufValue>> gguf_tokenizer_metadata(
    const std::filesystem::path& folder, std::int64_t vocab_size,
    std::string_view architecture = "llama");

/// Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json (and chat_template.jinja)
/// that transformers' AutoTokenizer loads, with ids equal to the file's.
void write_hf_tokenizer(const GgufFile& file, const std::filesystem::path& folder);

}  // namespace espalier
