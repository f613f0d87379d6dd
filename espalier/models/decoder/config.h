// What a decoder is: sizes and switches read from config.json or GGUF metadata.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

class GgufFile;

enum class DecoderFamily : std::uint8_t { kLlama, kMistral, kQwen2 };

/// llama3-style frequency scaling (config rope_scaling / rope_parameters with rope_type "llama3"),
/// or "linear".
struct RopeScaling {
  enum class Kind : std::uint8_t { kNone, kLlama3, kLinear };
  Kind kind = Kind::kNone;
  double factor = 8, low_freq_factor = 1, high_freq_factor = 4, original_context = 8192;
};

struct DecoderConfig {
  DecoderFamily family = DecoderFamily::kLlama;
  std::string architecture;  // "LlamaForCausalLM"
  std::int64_t hidden_size = 0, intermediate_size = 0, num_layers = 0, num_heads = 0,
               num_kv_heads = 0, head_dim = 0;
  std::int64_t vocab_size = 0, context_length = 0;
  double rms_norm_eps = 1e-5, rope_theta = 10000;
  RopeScaling rope_scaling;
  /// Divisors of the rotary frequencies as a GGUF file spells them out (rope_freqs.weight), size
  /// head_dim / 2; they win over `rope_scaling`, which is set too when the numbers are recognised
  /// as llama3's. Empty for Hugging Face folders.
  std::vector<double> rope_factors;
  bool tied_embeddings = false;
  bool attention_bias = false;  // q, k, v (and o for llama with attention_bias)
  bool attention_out_bias = false;
  bool mlp_bias = false;
  /// Sliding window per layer; 0 = full attention. Size num_layers.
  std::vector<std::int64_t> window;
  /// Layers without rotary embedding (SmolLM3-style no_rope_layers: 0 entries); size num_layers, 1
  /// = rotary.
  std::vector<std::uint8_t> use_rope;
  std::string torch_dtype = "float32";
  std::vector<std::int64_t> eos_token_ids;

  std::int64_t parameters_per_layer() const;
  std::int64_t parameters() const;  // tied matrices counted once
};

/// "llama, mistral, qwen2, smollm3": the model_type values that parse_hf_decoder_config takes.
std::string supported_model_types();

/// From config.json text. Accepts both spellings of old and new keys (torch_dtype/dtype; rope_theta
/// + rope_scaling / rope_parameters). Collects all problems in one Error(kInput); unknown families
/// are Error(kUnsupported) with the list of families we have.
DecoderConfig parse_hf_decoder_config(std::string_view config_json,
                                      std::string_view source = "config.json");
/// From GGUF metadata (architectures llama and qwen2). Ties and biases follow from which tensors
/// exist.
DecoderConfig parse_gguf_decoder_config(const GgufFile& file);

}  // namespace espalier
