// DecoderConfig -> config.json and GGUF keys.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numbers>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/surgery/model_metadata_internal.h"

namespace espalier {
namespace {

Json token_id(const GgufFile& file, const char* name) {
  const auto id = file.get_uint(std::string("tokenizer.ggml.") + name + "_token_id");
  return id ? Json(*id) : Json(nullptr);
}

/// GGUF keeps float32: the shortest decimal that means the same float32 ("1e-05",
/// not 9.999999747378752e-06).
double shortest(double value) { return std::stod(format("{}", static_cast<float>(value))); }

Json eos_ids(const DecoderConfig& config) {
  if (config.eos_token_ids.empty()) return nullptr;
  return config.eos_token_ids.size() == 1 ? Json(config.eos_token_ids.front())
                                          : Json(config.eos_token_ids);
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
      return {{"rope_type", "longrope"},
              {"short_factor", scaling.short_factors},
              {"long_factor", scaling.long_factors},
              {"attention_factor", scaling.attention_factor},
              {"original_max_position_embeddings",
               static_cast<std::int64_t>(scaling.original_context)}};
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

bool has_window(const DecoderConfig& config) {
  return std::any_of(config.window.begin(), config.window.end(), [&](std::int64_t window) {
    return window > 0 && window < config.context_length;
  });
}

class MetadataList {
 public:
  explicit MetadataList(std::string arch) : arch_(std::move(arch)) {}
  void general(const std::string& key, GgufValue value) {
    list_.emplace_back("general." + key, std::move(value));
  }
  void u32(const std::string& key, std::int64_t value) {
    list_.emplace_back(arch_ + "." + key, GgufValue::u32(static_cast<std::uint32_t>(value)));
  }
  void f32(const std::string& key, double value) {
    list_.emplace_back(arch_ + "." + key, GgufValue::f32(static_cast<float>(value)));
  }
  void string(const std::string& key, std::string value) {
    list_.emplace_back(arch_ + "." + key, GgufValue::string(std::move(value)));
  }
  std::vector<std::pair<std::string, GgufValue>> take() { return std::move(list_); }

 private:
  std::string arch_;
  std::vector<std::pair<std::string, GgufValue>> list_;
};

/// Families whose settings these writers know.
void check_known(const DecoderConfig& config) {
  if (config.family == DecoderFamily::kLlama || config.family == DecoderFamily::kMistral ||
      config.family == DecoderFamily::kQwen2 || config.family == DecoderFamily::kQwen3 ||
      config.family == DecoderFamily::kOlmo2)
    return;
  throw Error(ErrorKind::kUnsupported, config.architecture,
              "changing between Hugging Face folders and GGUF files is not supported for this "
              "family (llama, mistral, qwen2, qwen3 and olmo2 are)")
      .hint("prune and write this model in the form it has");
}

void check_expressible(const DecoderConfig& config, std::vector<std::string>& warnings) {
  check_known(config);
  if (std::find(config.use_rope.begin(), config.use_rope.end(), 0) != config.use_rope.end()) {
    throw Error(ErrorKind::kUnsupported, config.architecture,
                "some layers have no rotary embedding, which the GGUF architectures llama and "
                "qwen2 cannot say")
        .hint("keep this model as a Hugging Face folder");
  }
  if (!has_window(config)) return;
  if (std::adjacent_find(config.window.begin(), config.window.end(), std::not_equal_to<>()) !=
      config.window.end()) {
    throw Error(ErrorKind::kUnsupported, config.architecture,
                "the sliding window differs between layers, which the GGUF architectures llama and "
                "qwen2 cannot say")
        .hint("keep this model as a Hugging Face folder");
  }
  warnings.push_back(format(
      "the sliding window of {} tokens is written, but llama.cpp ignores it for this architecture: "
      "outputs differ beyond {} tokens",
      config.window.front(), config.window.front()));
}

}  // namespace

std::string hf_config_text(const DecoderConfig& config, const GgufFile& file, Dtype dtype) {
  check_known(config);
  const bool qwen =
      config.family == DecoderFamily::kQwen2 || config.family == DecoderFamily::kQwen3;
  const std::int64_t window = has_window(config) ? config.window.front() : 0;
  // transformers' llama knows no windows, its mistral is llama with one.
  const bool mistral = config.family == DecoderFamily::kLlama && window > 0;
  Json json = Json::object();
  json["architectures"] = {mistral ? std::string("MistralForCausalLM") : config.architecture};
  json["model_type"] = mistral ? std::string_view("mistral") : gguf_architecture(config.family);
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = config.intermediate_size;
  json["num_hidden_layers"] = config.num_layers;
  json["num_attention_heads"] = config.num_heads;
  json["num_key_value_heads"] = config.num_kv_heads;
  json["head_dim"] = config.head_dim;
  json["hidden_act"] = "silu";
  json["max_position_embeddings"] = config.context_length;
  json["rms_norm_eps"] = shortest(config.rms_norm_eps);
  json["rope_theta"] = shortest(config.rope_theta);
  json["rope_scaling"] = rope_scaling(config, file);
  if (qwen) {
    json["use_sliding_window"] = window > 0;
    json["max_window_layers"] = window > 0 ? 0 : config.num_layers;
  } else if (!mistral) {
    json["attention_bias"] = config.attention_bias;
    json["mlp_bias"] = config.mlp_bias;
  }
  if (qwen || mistral) json["sliding_window"] = window > 0 ? Json(window) : Json(nullptr);
  json["attention_dropout"] = 0.0;
  json["initializer_range"] = 0.02;
  json["tie_word_embeddings"] = config.tied_embeddings;
  json["bos_token_id"] = token_id(file, "bos");
  json["eos_token_id"] = eos_ids(config);
  json["pad_token_id"] = token_id(file, "padding");
  json["torch_dtype"] = dtype_name(dtype);
  json["use_cache"] = true;
  if (mistral && (config.attention_bias || config.mlp_bias)) {
    throw Error(ErrorKind::kUnsupported, file.path().string(),
                "has a sliding window and biases, which no architecture of transformers combines");
  }
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

std::vector<std::pair<std::string, GgufValue>> gguf_model_metadata(
    const DecoderConfig& config, const std::string& name, GgufType type,
    std::vector<std::string>& warnings) {
  check_expressible(config, warnings);
  const std::string architecture(gguf_architecture(config.family));
  MetadataList list(architecture);
  list.general("architecture", GgufValue::string(architecture));
  list.general("type", GgufValue::string("model"));
  list.general("name", GgufValue::string(name));
  list.general("quantization_version", GgufValue::u32(2));
  list.general("file_type", GgufValue::u32(gguf_file_type(type)));
  list.u32("block_count", config.num_layers);
  list.u32("context_length", config.context_length);
  list.u32("embedding_length", config.hidden_size);
  list.u32("feed_forward_length", config.intermediate_size);
  list.u32("attention.head_count", config.num_heads);
  list.u32("attention.head_count_kv", config.num_kv_heads);
  list.f32("attention.layer_norm_rms_epsilon", config.rms_norm_eps);
  list.u32("attention.key_length", config.head_dim);
  list.u32("attention.value_length", config.head_dim);
  if (has_window(config)) list.u32("attention.sliding_window", config.window.front());
  list.u32("rope.dimension_count", config.head_dim);
  list.f32("rope.freq_base", config.rope_theta);
  if (config.rope_scaling.kind == RopeScaling::Kind::kLinear) {
    list.string("rope.scaling.type", "linear");
    list.f32("rope.scaling.factor", config.rope_scaling.factor);
  }
  list.u32("vocab_size", config.vocab_size);
  return list.take();
}

std::uint32_t gguf_file_type(GgufType type) {
  switch (type) {
    case GgufType::kF32:
      return 0;
    case GgufType::kF16:
      return 1;
    case GgufType::kQ4_0:
      return 2;
    case GgufType::kQ4_1:
      return 3;
    case GgufType::kQ8_0:
      return 7;
    case GgufType::kBF16:
      return 32;
    default:
      break;
  }
  throw Error(ErrorKind::kUnsupported, "--type",
              format("{} cannot be written", gguf_type_info(type).name))
      .hint("one of f32, f16, bf16, q8_0, q4_0, q4_1");
}

std::vector<float> gguf_rope_factors(const DecoderConfig& config) {
  if (!config.rope_factors.empty()) return {config.rope_factors.begin(), config.rope_factors.end()};
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind != RopeScaling::Kind::kLlama3) return {};
  std::vector<float> factors;
  for (std::int64_t i = 0; i < config.head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(config.head_dim);
    const double wavelength = 2 * std::numbers::pi * std::pow(config.rope_theta, exponent);
    double factor = 1;
    if (wavelength > scaling.original_context / scaling.low_freq_factor) {
      factor = scaling.factor;
    } else if (wavelength >= scaling.original_context / scaling.high_freq_factor) {
      const double smooth = (scaling.original_context / wavelength - scaling.low_freq_factor) /
                            (scaling.high_freq_factor - scaling.low_freq_factor);
      factor = 1 / ((1 - smooth) / scaling.factor + smooth);
    }
    factors.push_back(static_cast<float>(factor));
  }
  return factors;
}

}  // namespace espalier
