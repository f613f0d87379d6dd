// config.json of Hugging Face decoder folders -> DecoderConfig. Defaults are those of each family's
// configuration class in transformers, because files leave out what equals a default.
#include "espalier/models/decoder/config.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "espalier/models/decoder/bnb_weights.h"
#include "espalier/models/decoder/config_layers_internal.h"

namespace espalier {
namespace {

using F = DecoderFamily;
using N = NormPlacement;
using Q = QkNorm;
constexpr std::array kFamilies{
    FamilyRules{"llama", "LlamaForCausalLM", F::kLlama, 1e4, 0, false, 0, 1e-6},
    FamilyRules{"mistral", "MistralForCausalLM", F::kMistral, 1e4, 8, false, 0, 1e-6},
    FamilyRules{"qwen2", "Qwen2ForCausalLM", F::kQwen2, 1e4, 32, false, 0, 1e-6},
    FamilyRules{"qwen3", "Qwen3ForCausalLM", F::kQwen3, 1e4, 32, false, 128, 1e-6, N::kBefore,
                Q::kPerHead},
    FamilyRules{"smollm3", "SmolLM3ForCausalLM", F::kLlama, 2e6, 4, true, 0, 1e-6},
    FamilyRules{"gemma2", "Gemma2ForCausalLM", F::kGemma2, 1e4, 4, true, 256, 1e-6, N::kSandwich,
                Q::kNone},
    FamilyRules{"gemma3_text", "Gemma3ForCausalLM", F::kGemma3, 1e6, 4, true, 256, 1e-6,
                N::kSandwich, Q::kPerHead},
    FamilyRules{"olmo2", "Olmo2ForCausalLM", F::kOlmo2, 1e4, 0, false, 0, 1e-5, N::kAfter,
                Q::kWholeWidth},
    FamilyRules{"phi3", "Phi3ForCausalLM", F::kPhi3, 1e4, 0, false, 0, 1e-5},
};

Error unsupported(std::string_view source, std::string message) {
  return Error(ErrorKind::kUnsupported, source, message);
}

bool is_gemma(DecoderFamily family) { return family == F::kGemma2 || family == F::kGemma3; }

/// Decoders that we know by name and do not compute.
void refuse_known(const Json& config, std::string_view model_type, std::string_view architecture,
                  std::string_view source) {
  const auto has = [&](std::string_view part) {
    return model_type.find(part) != std::string_view::npos;
  };
  if (has("moe") || has("mixtral") || has("deepseek_v") || has("dbrx") || has("gpt_oss")) {
    throw unsupported(source, format("model_type \"{}\" is a mixture of experts ({}), which is not "
                                     "supported",
                                     model_type, architecture))
        .hint(format("supported: {}", supported_model_types()));
  }
  if (config.contains("text_config")) {
    throw unsupported(
        source, format("model_type \"{}\" ({}) keeps a text decoder inside a multimodal model",
                       model_type, architecture))
        .hint("save its text model alone (Gemma3ForCausalLM for gemma 3) and use that folder");
  }
}

/// Layers without keys and values of their own (gemma 3n, 4), wherever the key stands.
void refuse_shared_kv(const Json& config, std::string_view source) {
  for (const Json* level :
       {&config, config.contains("text_config") ? &config["text_config"] : &config}) {
    if (!level->is_object()) continue;
    const auto at = level->find("num_kv_shared_layers");
    if (at == level->end() || !at->is_number() || at->get<double>() <= 0) continue;
    throw unsupported(source, format("num_kv_shared_layers is {}: the last layers use keys and "
                                     "values of earlier ones, which is not supported",
                                     at->dump()));
  }
}

const FamilyRules& find_family(const Json& config, std::string_view source) {
  std::string model_type, architecture;
  if (const auto it = config.find("model_type"); it != config.end() && it->is_string())
    model_type = it->get<std::string>();
  if (const auto it = config.find("architectures");
      it != config.end() && it->is_array() && !it->empty() && it->front().is_string()) {
    architecture = it->front().get<std::string>();
  }
  for (const FamilyRules& rules : kFamilies) {
    // An architecture is the more exact word: "LlamaForSequenceClassification" is a llama we cannot
    // run as a decoder.
    if (architecture == rules.architecture ||
        (architecture.empty() && model_type == rules.model_type))
      return rules;
  }
  if (model_type.empty() && architecture.empty()) {
    throw Error(ErrorKind::kInput, source,
                "model_type and architectures are both missing, so the family is unknown")
        .hint(format("add \"model_type\": one of {}", supported_model_types()));
  }
  refuse_known(config, model_type, architecture, source);
  throw unsupported(
      source, format("model_type \"{}\" with architecture \"{}\" is not a decoder family we have",
                     model_type, architecture))
      .hint(format("supported: {}", supported_model_types()));
}

void check_activation(ConfigReader& reader, DecoderFamily family, std::string_view source) {
  if (is_gemma(family)) {
    const std::string activation = reader.text_or("hidden_activation", "gelu_pytorch_tanh");
    if (activation != "gelu_pytorch_tanh") {
      throw unsupported(
          source, format("hidden_activation is \"{}\", we have gelu_pytorch_tanh only for this "
                         "family",
                         activation));
    }
    return;
  }
  const std::string activation = reader.text_or("hidden_act", "silu");
  if (activation != "silu" && activation != "swish")
    throw unsupported(source, format("hidden_act is \"{}\", we have silu only", activation));
}

/// Anything present that would change the arithmetic and that we do not compute.
void refuse_unknown_arithmetic(ConfigReader& reader, const Json& config, DecoderFamily family,
                               std::string_view source) {
  check_activation(reader, family, source);
  if (const Json* q = reader.find("quantization_config"); q != nullptr)
    check_bnb_config(q->dump(), source);
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"}) {
    if (reader.integer_or(key, 0, 0, kMaxSize) > 1)
      throw unsupported(source,
                        format("{} is above 1: mixtures of experts are not supported", key));
  }
  for (const char* key :
       {"partial_rotary_factor", "logits_scaling", "residual_multiplier", "embedding_multiplier"}) {
    if (family == F::kPhi3 && key == std::string_view("partial_rotary_factor")) continue;
    if (reader.number_or(key, 1, -1e9, 1e9) != 1)
      throw unsupported(source, format("{} is {}, we have 1 only", key, config.at(key).dump()));
  }
  if (reader.boolean_or("use_bidirectional_attention", false))
    throw unsupported(source, "use_bidirectional_attention is true; decoders here are causal");
  for (const std::string_view key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    const bool known =
        family == F::kGemma2 || (family == F::kGemma3 && key == "final_logit_softcapping");
    if (!known && reader.number_or(key, 0, 0, 1e9) != 0) {
      throw unsupported(source,
                        format("{} is set, which models of this family do not compute", key));
    }
  }
}

/// Soft caps, score scale, embedding scale and the kind of norms.
void read_arithmetic(ConfigReader& reader, const Json& config, const FamilyRules& rules,
                     DecoderConfig& out) {
  out.norms = rules.norms;
  out.qk_norm = rules.qk_norm;
  out.fused_projections = rules.family == F::kPhi3;
  if (!is_gemma(rules.family)) return;
  out.norm_plus_one = out.gelu = out.scaled_embedding = true;
  out.attention_scale = 1 / std::sqrt(reader.number_or("query_pre_attn_scalar", 256, 1e-6, 1e9));
  // Absent: the class's default; null: none.
  const auto cap = [&](const char* key, double fallback) {
    return reader.number_or(key, config.contains(key) ? 0 : fallback, 0, 1e9);
  };
  const bool second = rules.family == F::kGemma2;
  if (second) out.attention_softcap = cap("attn_logit_softcapping", 50);
  out.final_softcap = cap("final_logit_softcapping", second ? 30 : 0);
}

void read_biases(ConfigReader& reader, DecoderConfig& out) {
  const bool qwen2 = out.family == F::kQwen2;
  const bool takes_key = !qwen2 && out.family != F::kMistral && out.family != F::kPhi3;
  out.attention_out_bias = takes_key && reader.boolean_or("attention_bias", false);
  out.attention_bias = qwen2 || out.attention_out_bias;
  out.mlp_bias = out.family == F::kLlama && reader.boolean_or("mlp_bias", false);
}

void read_sizes(ConfigReader& reader, const FamilyRules& rules, ProblemList& problems,
                DecoderConfig& out) {
  out.hidden_size = reader.required_size("hidden_size", kMaxWidth);
  out.intermediate_size = reader.required_size("intermediate_size", kMaxWidth);
  out.num_layers = reader.required_size("num_hidden_layers", kMaxLayers);
  out.num_heads = reader.required_size("num_attention_heads", kMaxWidth);
  out.vocab_size = reader.required_size("vocab_size", kMaxSize);
  out.context_length = reader.integer_or("max_position_embeddings", 2048, 1, 1ll << 40);
  out.rms_norm_eps = reader.number_or("rms_norm_eps", rules.eps, 0, 1);
  if (out.num_heads == 0 || out.hidden_size == 0) return;
  // The class default for an absent key, the number of heads for an explicit null or for llama.
  out.num_kv_heads = reader.integer_or("num_key_value_heads", out.num_heads, 1, kMaxWidth);
  if (out.num_heads % out.num_kv_heads != 0) {
    problems.add(format("num_attention_heads {} is not a multiple of num_key_value_heads {}",
                        out.num_heads, out.num_kv_heads));
  }
  if (!reader.has("head_dim") && out.hidden_size % out.num_heads != 0) {
    problems.add(format(
        "hidden_size {} is not a multiple of num_attention_heads {} and head_dim is not given",
        out.hidden_size, out.num_heads));
  }
  out.head_dim = reader.integer_or(
      "head_dim", std::max<std::int64_t>(out.hidden_size / out.num_heads, 1), 1, kMaxWidth);
  if (out.head_dim % 2 != 0)
    problems.add(format("head_dim {} is odd; rotary embedding needs pairs", out.head_dim));
  if (out.num_heads * out.head_dim > kMaxWidth)
    problems.add(format("{} heads of {} are too large", out.num_heads, out.head_dim));
}

}  // namespace

std::string supported_model_types() {
  std::string names;
  for (const FamilyRules& rules : kFamilies)
    names += (names.empty() ? "" : ", ") + std::string(rules.model_type);
  return names;
}

DecoderConfig parse_hf_decoder_config(std::string_view config_json, std::string_view source) {
  Json config = parse_json(config_json, source);
  if (!config.is_object()) throw Error(ErrorKind::kInput, source, "is not a JSON object");
  refuse_shared_kv(config, source);
  const FamilyRules& rules = find_family(config, source);
  // Class defaults for keys that are absent altogether (an explicit null is left as it is).
  if (rules.kv_heads != 0 && !config.contains("num_key_value_heads"))
    config["num_key_value_heads"] = rules.kv_heads;
  if (!config.contains("sliding_window") && rules.model_type != "smollm3" &&
      rules.family != F::kPhi3)
    config["sliding_window"] = 4096;
  if (rules.head_dim != 0 && !config.contains("head_dim")) config["head_dim"] = rules.head_dim;

  ProblemList problems(ErrorKind::kInput, std::string(source));
  ConfigReader reader(config, problems);
  refuse_unknown_arithmetic(reader, config, rules.family, source);
  DecoderConfig out;
  out.family = rules.family;
  out.architecture = std::string(rules.architecture);
  read_sizes(reader, rules, problems, out);
  read_arithmetic(reader, config, rules, out);
  read_rope(reader, rules, source, problems, out);
  read_rope_layers(reader, rules, problems, out);
  read_windows(reader, rules, source, problems, out);
  out.tied_embeddings = reader.boolean_or("tie_word_embeddings", rules.tied);
  read_biases(reader, out);
  out.torch_dtype = reader.text_or("dtype", reader.text_or("torch_dtype", "float32"));
  out.eos_token_ids = reader.integers("eos_token_id");
  problems.throw_if_any();
  return out;
}

std::int64_t DecoderConfig::parameters_per_layer() const {
  const std::int64_t q = num_heads * head_dim, kv = num_kv_heads * head_dim;
  std::int64_t count = hidden_size * (2 * q + 2 * kv) + 3 * hidden_size * intermediate_size;
  count += hidden_size * (norms == NormPlacement::kSandwich ? 4 : 2);
  if (qk_norm == QkNorm::kPerHead) count += 2 * head_dim;
  if (qk_norm == QkNorm::kWholeWidth) count += q + kv;
  if (attention_bias) count += q + 2 * kv;
  if (attention_out_bias) count += hidden_size;
  if (mlp_bias) count += 2 * intermediate_size + hidden_size;
  return count;
}

std::int64_t DecoderConfig::parameters() const {
  return num_layers * parameters_per_layer() + hidden_size +
         vocab_size * hidden_size * (tied_embeddings ? 1 : 2);
}

}  // namespace espalier
