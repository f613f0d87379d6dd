// A decoder's settings as config.json and as GGUF metadata. Internal to surgery.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "espalier/io/gguf.h"
#include "espalier/models/decoder/config.h"
#include "espalier/tensor/dtype.h"

namespace espalier {

/// config.json that transformers 4 and 5 read (the older spelling of keys, which both take).
/// Throws Error(kUnsupported) when the file's rotary factors come from no known rope_scaling.
std::string hf_config_text(const DecoderConfig& config, const GgufFile& file, Dtype dtype);

/// generation_config.json with the special ids of the file.
std::string hf_generation_config_text(const DecoderConfig& config, const GgufFile& file);

/// `general.*` and `{arch}.*` keys; the tokenizer's come from text/export.h. `warnings` takes what
/// a GGUF file cannot say. Throws Error(kUnsupported) for models that no GGUF architecture of ours
/// describes.
std::vector<std::pair<std::string, GgufValue>> gguf_model_metadata(
    const DecoderConfig& config, const std::string& name, GgufType type,
    std::vector<std::string>& warnings);

/// general.file_type of a file whose matrices are `type`.
std::uint32_t gguf_file_type(GgufType type);

/// The tensors that carry divisors of the rotary frequencies: rope_freqs.weight under llama3
/// scaling, rope_factors_long.weight and rope_factors_short.weight under longrope; none otherwise.
std::vector<std::pair<std::string, std::vector<float>>> gguf_rope_factors(
    const DecoderConfig& config);

}  // namespace espalier
