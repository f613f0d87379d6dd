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

/// GGUF file or folder -> Hugging Face folder with weights in `dtype` (F32, F16 or BF16):
/// config.json, tokenizer files, generation_config.json. `kept`: only these layers, renumbered
/// (empty: all). Memory O(one piece of a tensor). Throws Error(kUnsupported) for what a folder
/// cannot say; `stop` is honoured between pieces (Interrupted).
void convert_to_hf(const std::filesystem::path& source, const std::filesystem::path& destination,
                   Dtype dtype, Reporter& reporter, const std::vector<std::int64_t>& kept = {},
                   const StopToken& stop = never_stop());

/// The same from a GGUF file, all layers.
void convert_gguf_to_hf(const std::filesystem::path& gguf, const std::filesystem::path& destination,
                        Dtype dtype, Reporter& reporter);

/// Hugging Face folder or GGUF -> GGUF v3. Matrices become `type`; norms and other vectors stay
/// F32. When rows are not a multiple of the block, that tensor is written as F16 and the reporter
/// says so. Quantised source tensors of the same type are copied as bytes. `kept` and `stop` as
/// above.
void convert_to_gguf(const std::filesystem::path& source, const std::filesystem::path& destination,
                     GgufType type, Reporter& reporter, const std::vector<std::int64_t>& kept = {},
                     const StopToken& stop = never_stop());

/// The GGUF type with the layout of a folder's dtype; Error(kUnsupported) unless F32, F16 or BF16.
/// And back: F32 for quantised types.
GgufType gguf_type_of(Dtype dtype);
Dtype dtype_of(GgufType type);

/// The types that lose nothing when a model changes format: its matrices' own when the format has
/// it, else the widest.
Dtype default_hf_dtype(const std::filesystem::path& source);
GgufType default_gguf_type(const std::filesystem::path& source);

}  // namespace espalier
