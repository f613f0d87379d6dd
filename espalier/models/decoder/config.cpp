// config.json of Hugging Face decoder folders -> DecoderConfig. Defaults are those of each family's
// configuration class in transformers, because files leave out what equals a default.
#include "espalier/models/decoder/config.h"

#include <algorithm>
#include <array>

#include "espalier/models/decoder/config_reader_internal.h"

namespace espalier {
namespace {

// Far above any real model, and low enough that no product of sizes below overflows.
constexpr std::int64_t kMaxLayers = 10'000;
constexpr std::int64_t kMaxWidth = 1ll << 22;
constexpr std::int64_t kMaxSize = 1ll << 27;

/// What differs between the model_type values that share our blocks.
struct FamilyRules {
  std::string_view model_type, architecture;
  DecoderFamily family;
  double rope_theta;
  std::int64_t kv_heads;  // default of num_key_value_heads, 0 = num_attention_heads
  bool tied;
};

constexpr std::array kFamilies{
    FamilyRules{"llama", "LlamaForCausalLM", DecoderFamily::kLlama, 1e4, 0, false},
    FamilyRules{"mistral", "MistralForCausalLM", DecoderFamily::kMistral, 1e4, 8, false},
    FamilyRules{"qwen2", "Qwen2ForCausalLM", DecoderFamily::kQwen2, 1e4, 32, false},
    FamilyRules{"smollm3", "SmolLM3ForCausalLM", DecoderFamily::kLlama, 2e6, 4, true},
};

Error unsupported(std::string_view source, std::string message) {
  return Error(ErrorKind::kUnsupported, source, message);
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
  throw unsupported(
      source, format("model_type \"{}\" with architecture \"{}\" is not a decoder family we have",
                     model_type, architecture))
      .hint(format("supported: {}", supported_model_types()));
}

/// Anything present that would change the arithmetic and that we do not compute.
void refuse_unknown_arithmetic(ConfigReader& reader, const Json& config, std::string_view source) {
  const std::string activation = reader.text_or("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    throw unsupported(source, format("hidden_act is \"{}\", we have silu only", activation));
  }
  if (const Json* q = reader.find("quantization_config"); q != nullptr) {
    const std::string how =
        q->is_object() ? q->value("quant_method", std::string("unknown")) : std::string("unknown");
    throw unsupported(source,
                      format("quantization_config says the weights are stored with \"{}\"", how))
        .hint("use the unquantised folder, or a GGUF file of the model");
  }
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"}) {
    if (reader.integer_or(key, 0, 0, kMaxSize) > 1)
      throw unsupported(source,
                        format("{} is above 1: mixtures of experts are not supported", key));
  }
  for (const char* key :
       {"partial_rotary_factor", "logits_scaling", "residual_multiplier", "embedding_multiplier"}) {
    if (reader.number_or(key, 1, -1e9, 1e9) != 1)
      throw unsupported(source, format("{} is {}, we have 1 only", key, config.at(key).dump()));
  }
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) {
    if (reader.number_or(key, 0, 0, 1e9) != 0)
      throw unsupported(source, format("{} is set; soft-capping is not supported", key));
  }
}

void read_rope(ConfigReader& reader, const FamilyRules& rules, std::string_view source,
               ProblemList& problems, DecoderConfig& out) {
  out.rope_theta = reader.number_or("rope_theta", rules.rope_theta, 1e-6, 1e15);
  // transformers lets the older key win when a file has both.
  const char* key = reader.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  const Json* block = reader.find(key);
  if (block == nullptr) return;
  if (!block->is_object()) return reader.wrong(key, *block, "an object");
  ConfigReader rope(*block, problems, format("{}.", key));
  out.rope_theta = rope.number_or("rope_theta", out.rope_theta, 1e-6, 1e15);
  const std::string type = rope.text_or("rope_type", rope.text_or("type", "default"));
  if (rope.number_or("partial_rotary_factor", 1, 0, 1) != 1)
    throw unsupported(source, format("{}.partial_rotary_factor is below 1", key));
  if (rope.has("mrope_section"))
    throw unsupported(source, format("{}.mrope_section: multimodal rotary embedding", key));
  for (const auto& [name, value] : block->items()) {
    if (value.is_object())
      throw unsupported(source, format("{}.{}: rotary parameters per layer type", key, name));
  }
  if (type == "default") return;
  if (type == "linear") {
    out.rope_scaling.kind = RopeScaling::Kind::kLinear;
    out.rope_scaling.factor = rope.number_or("factor", 1, 1e-6, 1e9);
    if (!rope.has("factor")) problems.add(format("{}.factor is missing", key));
    return;
  }
  if (type != "llama3") {
    throw unsupported(
        source, format("{}.rope_type is \"{}\", we have default, linear and llama3", key, type));
  }
  for (const char* name : {"factor", "low_freq_factor", "high_freq_factor"}) {
    if (!rope.has(name)) problems.add(format("{}.{} is missing", key, name));
  }
  RopeScaling& scaling = out.rope_scaling;
  scaling.kind = RopeScaling::Kind::kLlama3;
  scaling.factor = rope.number_or("factor", 8, 1e-6, 1e9);
  scaling.low_freq_factor = rope.number_or("low_freq_factor", 1, 1e-6, 1e9);
  scaling.high_freq_factor = rope.number_or("high_freq_factor", 4, 1e-6, 1e9);
  scaling.original_context =
      reader.number_or("original_max_position_embeddings",
                       rope.number_or("original_max_position_embeddings",
                                      static_cast<double>(out.context_length), 1, 1e15),
                       1, 1e15);
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    problems.add(format("{}.high_freq_factor {} is not above low_freq_factor {}", key,
                        scaling.high_freq_factor, scaling.low_freq_factor));
  }
}

/// A per-layer list, or nothing; a list of another length is a problem.
const Json* layer_list(ConfigReader& reader, std::string_view key, std::int64_t layers,
                       ProblemList& problems) {
  const Json* list = reader.find(key);
  if (list == nullptr || layers == 0) return nullptr;
  if (!list->is_array()) {
    reader.wrong(key, *list, "a list");
    return nullptr;
  }
  if (static_cast<std::int64_t>(list->size()) != layers) {
    problems.add(
        format("{} has {} entries, but num_hidden_layers is {}", key, list->size(), layers));
    return nullptr;
  }
  return list;
}

void read_windows(ConfigReader& reader, const FamilyRules& rules, std::string_view source,
                  ProblemList& problems, DecoderConfig& out) {
  out.window.assign(static_cast<std::size_t>(out.num_layers), 0);
  if (rules.model_type == "llama") return;  // as in transformers, llama knows no windows
  const bool mistral = out.family == DecoderFamily::kMistral;
  // An explicit null means "no window" where an absent key means the class's default of 4096.
  std::int64_t window = reader.integer_or("sliding_window", 0, 0, kMaxSize);
  if (mistral) {
    std::fill(out.window.begin(), out.window.end(), window);
    return;
  }
  if (!reader.boolean_or("use_sliding_window", false)) window = 0;
  const std::int64_t full_below = reader.integer_or("max_window_layers", 28, 0, kMaxSize);
  const Json* types = layer_list(reader, "layer_types", out.num_layers, problems);
  for (std::int64_t i = 0; i < out.num_layers; ++i) {
    const auto at = static_cast<std::size_t>(i);
    bool sliding = rules.model_type == "qwen2" ? i >= full_below : out.use_rope[at] == 0;
    if (types != nullptr) {
      const Json& type = (*types)[at];
      if (!type.is_string()) {
        reader.wrong("layer_types", type, "strings");
        continue;
      }
      const auto name = type.get<std::string>();
      if (name != "sliding_attention" && name != "full_attention") {
        throw unsupported(
            source,
            format("layer_types[{}] is \"{}\", we have full_attention and sliding_attention", i,
                   name));
      }
      sliding = name == "sliding_attention";
    }
    out.window[at] = sliding ? window : 0;
  }
}

void read_rope_layers(ConfigReader& reader, const FamilyRules& rules, ProblemList& problems,
                      DecoderConfig& out) {
  out.use_rope.assign(static_cast<std::size_t>(out.num_layers), 1);
  if (rules.model_type != "smollm3")
    return;  // other classes of transformers ignore the keys, and so must we
  const std::int64_t interval = reader.integer_or("no_rope_layer_interval", 4, 1, kMaxSize);
  const Json* list = layer_list(reader, "no_rope_layers", out.num_layers, problems);
  for (std::int64_t i = 0; i < out.num_layers; ++i) {
    const auto at = static_cast<std::size_t>(i);
    out.use_rope[at] = (i + 1) % interval != 0 ? 1 : 0;
    if (list == nullptr) continue;
    const Json& entry = (*list)[at];
    if (!entry.is_number_integer())
      reader.wrong("no_rope_layers", entry, "0 or 1");
    else
      out.use_rope[at] = entry.get<std::int64_t>() != 0 ? 1 : 0;
  }
}

void read_sizes(ConfigReader& reader, ProblemList& problems, DecoderConfig& out) {
  out.hidden_size = reader.required_size("hidden_size", kMaxWidth);
  out.intermediate_size = reader.required_size("intermediate_size", kMaxWidth);
  out.num_layers = reader.required_size("num_hidden_layers", kMaxLayers);
  out.num_heads = reader.required_size("num_attention_heads", kMaxWidth);
  out.vocab_size = reader.required_size("vocab_size", kMaxSize);
  out.context_length = reader.integer_or("max_position_embeddings", 2048, 1, 1ll << 40);
  out.rms_norm_eps = reader.number_or("rms_norm_eps", 1e-6, 0, 1);
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
  const FamilyRules& rules = find_family(config, source);
  // Class defaults for keys that are absent altogether (an explicit null is left as it is).
  if (rules.kv_heads != 0 && !config.contains("num_key_value_heads"))
    config["num_key_value_heads"] = rules.kv_heads;
  if (!config.contains("sliding_window") && rules.model_type != "smollm3")
    config["sliding_window"] = 4096;

  ProblemList problems(ErrorKind::kInput, std::string(source));
  ConfigReader reader(config, problems);
  refuse_unknown_arithmetic(reader, config, source);
  DecoderConfig out;
  out.family = rules.family;
  out.architecture = std::string(rules.architecture);
  read_sizes(reader, problems, out);
  read_rope(reader, rules, source, problems, out);
  read_rope_layers(reader, rules, problems, out);
  read_windows(reader, rules, source, problems, out);
  out.tied_embeddings = reader.boolean_or("tie_word_embeddings", rules.tied);
  const bool takes_bias_keys = out.family == DecoderFamily::kLlama;
  out.attention_bias = out.family == DecoderFamily::kQwen2 ||
                       (takes_bias_keys && reader.boolean_or("attention_bias", false));
  out.attention_out_bias = takes_bias_keys && out.attention_bias;
  out.mlp_bias = takes_bias_keys && reader.boolean_or("mlp_bias", false);
  out.torch_dtype = reader.text_or("dtype", reader.text_or("torch_dtype", "float32"));
  out.eos_token_ids = reader.integers("eos_token_id");
  problems.throw_if_any();
  return out;
}

std::int64_t DecoderConfig::parameters_per_layer() const {
  const std::int64_t q = num_heads * head_dim, kv = num_kv_heads * head_dim;
  std::int64_t count =
      hidden_size * (2 * q + 2 * kv) + 3 * hidden_size * intermediate_size + 2 * hidden_size;
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
