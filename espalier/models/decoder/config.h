// What a decoder is: sizes and switches read from config.json or GGUF metadata.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

class GgufFile;

enum class DecoderFamily : std::uint8_t {
  kLlama,
  kMistral,
  kQwen2,
  kQwen3,
  kGemma2,
  kGemma3,
  kOlmo2,
  kPhi3,
};

/// Scaling of rotary frequencies (config rope_scaling / rope_parameters): "llama3", "linear", or
/// "longrope", which has a divisor for each frequency: `short_factors` while a sequence fits
/// `original_context`, `long_factors` beyond; size rotary_dim / 2 each.
struct RopeScaling {
  enum class Kind : std::uint8_t { kNone, kLlama3, kLinear, kLongrope };
  Kind kind = Kind::kNone;
  double factor = 8, low_freq_factor = 1, high_freq_factor = 4, original_context = 8192;
  std::vector<double> short_factors, long_factors;
  double attention_factor = 1;  // longrope: multiplies cosines and sines
};

/// Normalisation of queries and keys before the rotary embedding.
enum class QkNorm : std::uint8_t {
  kNone,
  kPerHead,     // each head by itself, one weight [head_dim] for all (qwen3, gemma3)
  kWholeWidth,  // all heads of a token together, weight [heads * head_dim] (olmo2)
};

/// Where a block normalises. Names of the norms are in decoder.h.
enum class NormPlacement : std::uint8_t {
  kBefore,    // what enters attention and MLP (llama)
  kAfter,     // what leaves them, before it joins the residual stream (olmo2)
  kSandwich,  // both (gemma2, gemma3)
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
  /// Leading elements of each head that are turned; 0 = all of head_dim.
  std::int64_t rotary_dim = 0;
  /// gemma3: layers with a window turn by this theta, unscaled; 0 = all layers by rope_theta.
  double local_rope_theta = 0;
  NormPlacement norms = NormPlacement::kBefore;
  QkNorm qk_norm = QkNorm::kNone;
  bool norm_plus_one = false;      // gemma: norms multiply by 1 + weight
  bool gelu = false;               // MLP gate: gelu (tanh form) instead of silu
  bool fused_projections = false;  // phi3: qkv_proj and gate_up_proj as one matrix each
  bool scaled_embedding = false;   // gemma: times sqrt(hidden_size), rounded to the compute dtype
  double attention_scale = 0;      // of scores; 0 = 1 / sqrt(head_dim)
  double attention_softcap = 0;    // scores become cap * tanh(score / cap); 0 = none
  double final_softcap = 0;        // the same for logits
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

  std::int64_t rotary_size() const { return rotary_dim > 0 ? rotary_dim : head_dim; }
  std::int64_t parameters_per_layer() const;
  std::int64_t parameters() const;  // tied matrices counted once
};

/// "llama, mistral, qwen2, ...": the model_type values that parse_hf_decoder_config takes.
std::string supported_model_types();

/// From config.json text. Accepts both spellings of old and new keys (torch_dtype/dtype; rope_theta
/// + rope_scaling / rope_parameters). Collects all problems in one Error(kInput); unknown families
/// are Error(kUnsupported) with the list of families we have.
DecoderConfig parse_hf_decoder_config(std::string_view config_json,
                                      std::string_view source = "config.json");
/// From GGUF metadata (architectures llama, qwen2, qwen3, gemma2, gemma3, phi3 and olmo2). Ties and
/// biases follow from which tensors exist.
DecoderConfig parse_gguf_decoder_config(const GgufFile& file);

/// "qwen3"; mistral is "llama".
std::string_view gguf_architecture(DecoderFamily family);
/// Of each so many layers the last has no window, as readers of the architecture take it without
/// being told (gemma2: 2, gemma3: 6); 0: no such pattern.
std::int64_t gguf_window_period(DecoderFamily family);
/// The period that says which layers have a window (1 = has one): `usual` when that does, else the
/// smallest one, n + 1 when all have; nullopt when no period does.
std::optional<std::int64_t> find_window_period(const std::vector<char>& windowed,
                                               std::int64_t usual);
/// The scale of scores that readers of GGUF files derive from gemma's sizes.
double gguf_attention_scale(const DecoderConfig& config);

}  // namespace espalier
