// A decoder in memory, or a checkpoint in another format, written as a complete folder or GGUF
// file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/io/gguf.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier {

/// Folder `source` with some tensors replaced (same shapes) or added (an untied lm_head.weight):
/// everything else is copied byte for byte, config.json gets tie_word_embeddings false when a head
/// is added. `source` may be a GGUF file, which is then converted first (see convert_gguf_to_hf).
void write_hf_with_replacements(const std::filesystem::path& source,
                                const std::map<std::string, at::Tensor>& replaced,
                                const std::filesystem::path& destination, Reporter& reporter);

/// GGUF -> Hugging Face folder: config.json, tokenizer files, generation_config.json, weights in
/// `dtype`.
void convert_gguf_to_hf(const std::filesystem::path& gguf, const std::filesystem::path& destination,
                        Dtype dtype, Reporter& reporter);

/// Hugging Face folder or GGUF -> GGUF v3. Matrices become `type`; norms and other vectors stay
/// F32. When rows are not a multiple of the block, that tensor is written as F16 and the reporter
/// says so. Quantised source tensors of the same type are copied as bytes.
void convert_to_gguf(const std::filesystem::path& source, const std::filesystem::path& destination,
                     GgufType type, Reporter& reporter);

}  // namespace espalier
