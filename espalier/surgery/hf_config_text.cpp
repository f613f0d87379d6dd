// DecoderConfig -> config.json and generation_config.json.
#include <algorithm>
#include <cmath>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/surgery/model_metadata_internal.h"

namespace espalier {
namespace {

using F = DecoderFamily;

Json token_id(const GgufFile& file, const char* name) {
  const auto id = file.get_uint(std::string("tokenizer.ggml.") + name + "_token_id");
  return id ? Json(*id) : Json(nullptr);
}

/// GGUF keeps float32: the shortest decimal that means the same float32 ("1e-05",
/// not 9.999999747378752e-06).
double shortest(double value) { return std::stod(format("{}", static_cast<float>(value))); }

Json shortest(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(shortest(value));
  return list;
}

/// An absent setting is null.
Json positive(double value) { return value > 0 ? Json(shortest(value)) : Json(nullptr); }

Json eos_ids(const DecoderConfig& config) {
  if (config.eos_token_ids.empty()) return nullptr;
  return config.eos_token_ids.size() == 1 ? Json(config.eos_token_ids.front())
                                          : Json(config.eos_token_ids);
}

/// Three keys as older releases of transformers insist on; a fourth where the factor of cosines and
/// sines is not the one that follows from the two context lengths.
Json longrope(const DecoderConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  Json json = {{"type", "longrope"},
               {"short_factor", shortest(scaling.short_factors)},
               {"long_factor", shortest(scaling.long_factors)}};
  const double ratio = static_cast<double>(config.context_length) / scaling.original_context;
  const double usual =
      ratio <= 1 ? 1 : std::sqrt(1 + std::log(ratio) / std::log(scaling.original_context));
  if (std::abs(usual - scaling.attention_factor) > 1e-6 * usual)
    json["attention_factor"] = shortest(scaling.attention_factor);
  return json;
}

Json rope_scaling(const DecoderConfig& config, const GgufFile& file) {
  const RopeScaling& scaling = config.rope_scaling;
  switch (scaling.kind) {
    case RopeScaling::Kind::kLlama3:
      return {{"rope_type", "llama3"},
              {"factor", scaling.factor},
              {"low_freq_factor", scaling.low_freq_factor},
              {"high_freq_factor", scaling.high_freq_factor},
              {"original_max_position_embeddings",
               static_cast<std::int64_t>(scaling.original_context)}};
    case RopeScaling::Kind::kLinear:
      return {{"rope_type", "linear"}, {"factor", scaling.factor}};
    case RopeScaling::Kind::kLongrope:
      return longrope(config);
    case RopeScaling::Kind::kNone:
      break;
  }
  if (std::any_of(config.rope_factors.begin(), config.rope_factors.end(),
                  [](double f) { return f != 1; })) {
    throw Error(ErrorKind::kUnsupported, file.path().string(),
                "rope_freqs.weight holds factors that no rope_scaling of config.json gives")
        .hint("keep this model as a GGUF file");
  }
  return nullptr;
}

std::int64_t window_of(const DecoderConfig& config) {
  return config.window.empty() ? 0 : *std::max_element(config.window.begin(), config.window.end());
}

/// A window as wide as the context is none.
std::int64_t narrow_window(const DecoderConfig& config) {
  return window_of(config) < config.context_length ? window_of(config) : 0;
}

void add_gemma(const DecoderConfig& config, Json& json) {
  Json types = Json::array();
  std::vector<char> windowed;
  for (const std::int64_t window : config.window) {
    types.push_back(window > 0 ? "sliding_attention" : "full_attention");
    windowed.push_back(window > 0 ? 1 : 0);
  }
  const double scalar = 1 / (config.attention_scale * config.attention_scale);
  const double whole = std::round(scalar);
  const bool third = config.family == F::kGemma3;
  json["hidden_activation"] = "gelu_pytorch_tanh";
  if (std::abs(scalar - whole) < 1e-4 * scalar)
    json["query_pre_attn_scalar"] = static_cast<std::int64_t>(whole);
  else
    json["query_pre_attn_scalar"] = scalar;
  json["sliding_window"] = window_of(config) > 0 ? window_of(config) : config.context_length;
  json["layer_types"] = std::move(types);
  json["attn_logit_softcapping"] = positive(config.attention_softcap);
  json["final_logit_softcapping"] = positive(config.final_softcap);
  if (!third) return;
  json["rope_local_base_freq"] = shortest(config.local_rope_theta);
  // For releases that do not know layer_types yet.
  if (const auto period = find_window_period(windowed, gguf_window_period(config.family)))
    json["sliding_window_pattern"] = *period;
}

/// The keys that not every family has.
void add_family(const DecoderConfig& config, bool mistral, Json& json) {
  const bool qwen = config.family == F::kQwen2 || config.family == F::kQwen3;
  const std::int64_t window = narrow_window(config);
  if (config.family != F::kQwen2 && config.family != F::kPhi3 && !mistral)
    json["attention_bias"] = config.attention_bias;
  if (config.family == F::kLlama && !mistral) json["mlp_bias"] = config.mlp_bias;
  if (qwen) {
    json["use_sliding_window"] = window > 0;
    json["max_window_layers"] = window > 0 ? 0 : config.num_layers;
  }
  if (qwen || mistral || config.family == F::kPhi3)
    json["sliding_window"] = window > 0 ? Json(window) : Json(nullptr);
  if (config.norm_plus_one) add_gemma(config, json);
  if (config.family == F::kPhi3) {
    if (config.rope_scaling.kind == RopeScaling::Kind::kLongrope)
      json["original_max_position_embeddings"] =
          static_cast<std::int64_t>(config.rope_scaling.original_context);
    else
      json["original_max_position_embeddings"] = config.context_length;
    json["partial_rotary_factor"] =
        static_cast<double>(config.rotary_size()) / static_cast<double>(config.head_dim);
  }
}

}  // namespace

std::string hf_config_text(const DecoderConfig& config, const GgufFile& file, Dtype dtype) {
  // transformers' llama knows no windows, its mistral is llama with one.
  const bool mistral = config.family == F::kLlama && narrow_window(config) > 0;
  if (mistral && (config.attention_bias || config.mlp_bias)) {
    throw Error(ErrorKind::kUnsupported, file.path().string(),
                "has a sliding window and biases, which no architecture of transformers combines");
  }
  Json json = Json::object();
  json["architectures"] = {mistral ? std::string("MistralForCausalLM") : config.architecture};
  json["model_type"] = mistral                       ? std::string_view("mistral")
                       : config.family == F::kGemma3 ? std::string_view("gemma3_text")
                                                     : gguf_architecture(config.family);
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = config.intermediate_size;
  json["num_hidden_layers"] = config.num_layers;
  json["num_attention_heads"] = config.num_heads;
  json["num_key_value_heads"] = config.num_kv_heads;
  json["head_dim"] = config.head_dim;
  json["hidden_act"] = config.gelu ? "gelu_pytorch_tanh" : "silu";
  json["max_position_embeddings"] = config.context_length;
  json["rms_norm_eps"] = shortest(config.rms_norm_eps);
  json["rope_theta"] = shortest(config.rope_theta);
  json["rope_scaling"] = rope_scaling(config, file);
  add_family(config, mistral, json);
  json["attention_dropout"] = 0.0;
  json["initializer_range"] = 0.02;
  json["tie_word_embeddings"] = config.tied_embeddings;
  json["bos_token_id"] = token_id(file, "bos");
  json["eos_token_id"] = eos_ids(config);
  json["pad_token_id"] = token_id(file, "padding");
  json["torch_dtype"] = dtype_name(dtype);
  json["use_cache"] = true;
  return dump_json(json);
}

std::string hf_generation_config_text(const DecoderConfig& config, const GgufFile& file) {
  Json json = Json::object();
  json["_from_model_config"] = true;
  json["bos_token_id"] = token_id(file, "bos");
  json["eos_token_id"] = eos_ids(config);
  json["pad_token_id"] = token_id(file, "padding");
  return dump_json(json);
}

}  // namespace espalier
