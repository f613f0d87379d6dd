// GGUF metadata -> DecoderConfig. What Hugging Face says in config.json, a GGUF file says by keys
// under its architecture's name and by which tensors exist.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/io/gguf.h"
#include "espalier/kernels/gguf_quants/gguf_quants.h"
#include "espalier/models/decoder/config.h"

namespace espalier {
namespace {

constexpr std::int64_t kMaxLayers = 10'000;
constexpr std::int64_t kMaxWidth = 1ll << 22;
constexpr std::int64_t kMaxSize = 1ll << 27;

struct Architecture {
  std::string_view name;
  DecoderFamily family;
  std::string_view architecture;
};
constexpr std::array kArchitectures{
    Architecture{"llama", DecoderFamily::kLlama, "LlamaForCausalLM"},
    Architecture{"qwen2", DecoderFamily::kQwen2, "Qwen2ForCausalLM"},
    Architecture{"qwen3", DecoderFamily::kQwen3, "Qwen3ForCausalLM"},
    Architecture{"gemma2", DecoderFamily::kGemma2, "Gemma2ForCausalLM"},
    Architecture{"gemma3", DecoderFamily::kGemma3, "Gemma3ForCausalLM"},
    Architecture{"phi3", DecoderFamily::kPhi3, "Phi3ForCausalLM"},
    Architecture{"olmo2", DecoderFamily::kOlmo2, "Olmo2ForCausalLM"},
};

/// Typed look-ups under "{arch}." that collect problems.
class GgufKeys {
 public:
  GgufKeys(const GgufFile& file, ProblemList& problems)
      : file_(file), problems_(problems), prefix_(file.architecture() + ".") {}

  /// A number, or an array whose elements are all equal; arrays that differ by layer are
  /// Error(kUnsupported).
  std::optional<std::int64_t> size(const std::string& name, std::int64_t maximum) {
    const std::string key = prefix_ + name;
    const GgufValue* value = file_.find(key);
    if (value == nullptr) return std::nullopt;
    std::int64_t number = 0;
    if (value->type == GgufValueType::kArray) {
      const auto list = file_.get_ints(key).value_or(std::vector<std::int64_t>{});
      if (list.empty()) return std::nullopt;
      if (std::any_of(list.begin(), list.end(),
                      [&](std::int64_t v) { return v != list.front(); })) {
        throw Error(ErrorKind::kUnsupported, file_.path().string(),
                    format("{} differs between layers", key));
      }
      number = list.front();
    } else {
      const auto raw = file_.get_uint(key);
      number = raw && *raw <= static_cast<std::uint64_t>(maximum) ? static_cast<std::int64_t>(*raw)
                                                                  : maximum + 1;
    }
    if (number < 1 || number > maximum) {
      problems_.add(format("{} is out of range, expected an integer in 1-{}", key, maximum));
      return std::nullopt;
    }
    return number;
  }

  /// As size, but 0 says the same as no such key (phi3 files without a window hold it).
  std::int64_t size_or_none(const std::string& name, std::int64_t maximum, std::int64_t absent) {
    const GgufValue* value = file_.find(prefix_ + name);
    if (value != nullptr && value->type != GgufValueType::kArray &&
        file_.get_uint(prefix_ + name) == std::uint64_t{0})
      return 0;
    return size(name, maximum).value_or(absent);
  }

  std::int64_t required(const std::string& name, std::int64_t maximum) {
    if (file_.find(prefix_ + name) == nullptr) {
      problems_.add(format("{}{} is missing", prefix_, name));
      return 0;
    }
    return size(name, maximum).value_or(0);
  }

  double number_or(const std::string& name, double fallback) {
    const double value = file_.get_float(prefix_ + name).value_or(fallback);
    if (std::isfinite(value) && value >= 0) return value;
    problems_.add(format("{}{} is {}, expected a number of at least 0", prefix_, name, value));
    return fallback;
  }

  std::string text(const std::string& name) {
    return file_.get_string(prefix_ + name).value_or("");
  }
  const std::string& prefix() const { return prefix_; }

 private:
  const GgufFile& file_;
  ProblemList& problems_;
  std::string prefix_;
};

/// The divisors that llama3 scaling gives, in the arithmetic of the converter that writes
/// rope_freqs.weight.
std::vector<double> llama3_factors(const DecoderConfig& config, const RopeScaling& scaling) {
  std::vector<double> factors;
  for (std::int64_t i = 0; i < config.head_dim; i += 2) {
    const double freq = 1.0 / std::pow(config.rope_theta, static_cast<double>(i) /
                                                              static_cast<double>(config.head_dim));
    const double wavelength = 2 * std::numbers::pi / freq;
    if (wavelength < scaling.original_context / scaling.high_freq_factor) {
      factors.push_back(1);
    } else if (wavelength > scaling.original_context / scaling.low_freq_factor) {
      factors.push_back(scaling.factor);
    } else {
      const double smooth = (scaling.original_context / wavelength - scaling.low_freq_factor) /
                            (scaling.high_freq_factor - scaling.low_freq_factor);
      factors.push_back(1.0 / ((1 - smooth) / scaling.factor + smooth));
    }
  }
  return factors;
}

/// Positive numbers of a vector tensor of `count` elements; empty when it is absent or wrong.
std::vector<double> factor_tensor(const GgufFile& file, const char* name, std::int64_t count,
                                  ProblemList& problems) {
  const GgufTensor* tensor = file.find_tensor(name);
  if (tensor == nullptr) return {};
  if (tensor->type != GgufType::kF32 || tensor->numel() != count) {
    problems.add(format("{} has {} elements of type {}, expected {} of F32", name, tensor->numel(),
                        gguf_type_info(tensor->type).name, count));
    return {};
  }
  std::vector<float> values(static_cast<std::size_t>(count));
  dequantize(tensor->type, tensor->data, values);
  for (const float v : values) {
    if (std::isfinite(v) && v > 0) continue;
    problems.add(format("{} holds {}, expected positive numbers", name, v));
    return {};
  }
  return {values.begin(), values.end()};
}

/// rope_freqs.weight as numbers; and, when they are what Llama 3.x models use, the settings they
/// came from.
void read_rope_factors(const GgufFile& file, ProblemList& problems, DecoderConfig& out) {
  if (out.head_dim == 0) return;
  out.rope_factors = factor_tensor(file, "rope_freqs.weight", out.rotary_size() / 2, problems);
  if (out.rope_factors.empty()) return;
  RopeScaling guess;
  guess.kind = RopeScaling::Kind::kLlama3;
  guess.factor = *std::max_element(out.rope_factors.begin(), out.rope_factors.end());
  const auto expected = llama3_factors(out, guess);
  for (std::size_t i = 0; i < expected.size() && i < out.rope_factors.size(); ++i) {
    if (std::abs(expected[i] - out.rope_factors[i]) > 1e-4 * expected[i]) return;
  }
  if (expected.size() == out.rope_factors.size()) out.rope_scaling = guess;
}

/// longrope: two tensors of divisors and a factor of cosines and sines.
void read_longrope(const GgufFile& file, GgufKeys& keys, ProblemList& problems,
                   DecoderConfig& out) {
  RopeScaling scaling;
  scaling.kind = RopeScaling::Kind::kLongrope;
  const std::int64_t count = out.rotary_size() / 2;
  scaling.short_factors = factor_tensor(file, "rope_factors_short.weight", count, problems);
  scaling.long_factors = factor_tensor(file, "rope_factors_long.weight", count, problems);
  if (scaling.short_factors.empty() && scaling.long_factors.empty()) return;
  if (scaling.short_factors.empty() || scaling.long_factors.empty()) {
    problems.add(format("{} and {} must both be there", "rope_factors_short.weight",
                        "rope_factors_long.weight"));
    return;
  }
  scaling.original_context = static_cast<double>(
      keys.size("rope.scaling.original_context_length", 1ll << 40).value_or(out.context_length));
  scaling.attention_factor = keys.number_or("rope.scaling.attn_factor", 1);
  out.rope_scaling = scaling;
}

void read_rope(const GgufFile& file, GgufKeys& keys, ProblemList& problems, DecoderConfig& out) {
  out.rope_theta = keys.number_or("rope.freq_base", 10000);
  if (out.family == DecoderFamily::kGemma3)
    out.local_rope_theta = keys.number_or("rope.freq_base_swa", 10000);
  if (const auto rotary = keys.size("rope.dimension_count", kMaxWidth);
      rotary && *rotary != out.head_dim && out.head_dim != 0) {
    if (out.family != DecoderFamily::kPhi3 || *rotary > out.head_dim || *rotary % 2 != 0) {
      throw Error(ErrorKind::kUnsupported, file.path().string(),
                  format("rope.dimension_count is {}, head size {}: partial rotary embedding",
                         *rotary, out.head_dim));
    }
    out.rotary_dim = *rotary;
  }
  const std::string scaling = keys.text("rope.scaling.type");
  const double factor =
      keys.number_or("rope.scaling.factor", keys.number_or("rope.scale_linear", 0));
  if (scaling == "linear" || (scaling.empty() && factor > 0 && factor != 1)) {
    out.rope_scaling.kind = RopeScaling::Kind::kLinear;
    out.rope_scaling.factor = factor > 0 ? factor : 1;
  } else if (!scaling.empty() && scaling != "none" && scaling != "longrope") {
    throw Error(ErrorKind::kUnsupported, file.path().string(),
                format("rope.scaling.type is \"{}\", we have none, linear and longrope", scaling));
  }
  read_rope_factors(file, problems, out);
  if (out.family == DecoderFamily::kPhi3 && out.head_dim > 0)
    read_longrope(file, keys, problems, out);
}

/// Windows: an array of layers, a period (of each p layers the last one sees everything), or what
/// the architecture implies.
void read_windows(const GgufFile& file, GgufKeys& keys, ProblemList& problems, DecoderConfig& out) {
  const bool gemma2 = out.family == DecoderFamily::kGemma2,
             gemma3 = out.family == DecoderFamily::kGemma3;
  const std::int64_t window =
      keys.size_or_none("attention.sliding_window", kMaxSize, gemma2 ? 4096 : 0);
  if (window > 0 && out.family == DecoderFamily::kOlmo2) {
    throw Error(ErrorKind::kUnsupported, file.path().string(),
                format("general.architecture is \"olmo2\" with {}attention.sliding_window: that is "
                       "Olmo 3, which is not supported",
                       keys.prefix()));
  }
  out.window.assign(static_cast<std::size_t>(out.num_layers), window);
  if (!gemma2 && !gemma3) return;
  const std::string key = keys.prefix() + "attention.sliding_window_pattern";
  const GgufValue* value = file.find(key);
  if (value != nullptr && value->type == GgufValueType::kArray) {
    const auto* array = std::get_if<GgufArray>(&value->value);
    std::vector<std::int64_t> list;
    if (array->element_type == GgufValueType::kBool)
      for (const char c : array->raw) list.push_back(c != 0 ? 1 : 0);
    else
      list = file.get_ints(key).value_or(std::vector<std::int64_t>{});
    if (static_cast<std::int64_t>(list.size()) != out.num_layers) {
      problems.add(
          format("{} has {} entries, but block_count is {}", key, list.size(), out.num_layers));
      return;
    }
    for (std::size_t i = 0; i < list.size(); ++i)
      if (list[i] == 0) out.window[i] = 0;
    return;
  }
  const auto period = keys.size("attention.sliding_window_pattern", kMaxLayers)
                          .value_or(gguf_window_period(out.family));
  for (std::int64_t i = period - 1; i < out.num_layers; i += period)
    out.window[static_cast<std::size_t>(i)] = 0;
}

/// What llama.cpp derives from the architecture's name and size.
void read_arithmetic(GgufKeys& keys, DecoderConfig& out) {
  switch (out.family) {
    case DecoderFamily::kQwen3:
      out.qk_norm = QkNorm::kPerHead;
      return;
    case DecoderFamily::kOlmo2:
      out.qk_norm = QkNorm::kWholeWidth;
      out.norms = NormPlacement::kAfter;
      return;
    case DecoderFamily::kPhi3:
      out.fused_projections = true;
      return;
    case DecoderFamily::kGemma2:
      out.attention_softcap = keys.number_or("attn_logit_softcapping", 50);
      out.final_softcap = keys.number_or("final_logit_softcapping", 30);
      break;
    case DecoderFamily::kGemma3:
      out.final_softcap = keys.number_or("final_logit_softcapping", 0);
      out.qk_norm = QkNorm::kPerHead;
      break;
    default:
      return;
  }
  out.norms = NormPlacement::kSandwich;
  out.norm_plus_one = out.gelu = out.scaled_embedding = true;
  out.attention_scale = keys.number_or("attention.scale", 0);
  if (out.attention_scale == 0) out.attention_scale = gguf_attention_scale(out);
}

void read_sizes(const GgufFile& file, GgufKeys& keys, ProblemList& problems, DecoderConfig& out) {
  out.hidden_size = keys.required("embedding_length", kMaxWidth);
  out.intermediate_size = keys.required("feed_forward_length", kMaxWidth);
  out.num_layers = keys.required("block_count", kMaxLayers);
  out.num_heads = keys.required("attention.head_count", kMaxWidth);
  out.context_length = keys.size("context_length", 1ll << 40).value_or(2048);
  out.rms_norm_eps = keys.number_or("attention.layer_norm_rms_epsilon", 1e-6);
  out.num_kv_heads = keys.size("attention.head_count_kv", kMaxWidth).value_or(out.num_heads);
  if (out.num_heads == 0 || out.hidden_size == 0) return;
  if (out.num_heads % out.num_kv_heads != 0) {
    problems.add(format("attention.head_count {} is not a multiple of attention.head_count_kv {}",
                        out.num_heads, out.num_kv_heads));
  }
  out.head_dim = keys.size("attention.key_length", kMaxWidth)
                     .value_or(std::max<std::int64_t>(out.hidden_size / out.num_heads, 1));
  if (const auto value_length = keys.size("attention.value_length", kMaxWidth);
      value_length && *value_length != out.head_dim) {
    throw Error(ErrorKind::kUnsupported, file.path().string(),
                "attention.key_length and attention.value_length differ");
  }
  if (out.head_dim % 2 != 0)
    problems.add(format("head size {} is odd; rotary embedding needs pairs", out.head_dim));
  if (out.num_heads * out.head_dim > kMaxWidth)
    problems.add(format("{} heads of {} are too large", out.num_heads, out.head_dim));
}

}  // namespace

std::int64_t gguf_window_period(DecoderFamily family) {
  return family == DecoderFamily::kGemma2 ? 2 : family == DecoderFamily::kGemma3 ? 6 : 0;
}

std::optional<std::int64_t> find_window_period(const std::vector<char>& windowed,
                                               std::int64_t usual) {
  const auto fits = [&](std::int64_t period) {
    for (std::size_t i = 0; i < windowed.size(); ++i) {
      const bool full = (static_cast<std::int64_t>(i) + 1) % period == 0;
      if (full == (windowed[i] != 0)) return false;
    }
    return true;
  };
  if (usual > 0 && fits(usual)) return usual;
  for (std::int64_t period = 1; period <= static_cast<std::int64_t>(windowed.size()) + 1; ++period)
    if (fits(period)) return period;
  return std::nullopt;
}

double gguf_attention_scale(const DecoderConfig& config) {
  // Of each family the model of 27 billion parameters, known by its number of layers, divides by
  // the width of a head of the residual stream.
  const bool largest = (config.family == DecoderFamily::kGemma2 && config.num_layers == 46) ||
                       (config.family == DecoderFamily::kGemma3 && config.num_layers == 62);
  const std::int64_t width = largest ? config.hidden_size / config.num_heads : config.head_dim;
  return 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(width, 1)));
}

std::string_view gguf_architecture(DecoderFamily family) {
  for (const Architecture& entry : kArchitectures)
    if (entry.family == family) return entry.name;
  return "llama";  // mistral
}

DecoderConfig parse_gguf_decoder_config(const GgufFile& file) {
  const std::string source = file.path().string();
  const std::string arch = file.architecture();
  ProblemList problems(ErrorKind::kInput, source);
  GgufKeys keys(file, problems);
  // Before the list of architectures: the reason says more than a name (gemma3n, gemma4).
  if (keys.size_or_none("attention.shared_kv_layers", kMaxSize, 0) > 0) {
    throw Error(
        ErrorKind::kUnsupported, source,
        format("{}attention.shared_kv_layers is set: the last layers use keys and values of "
               "earlier ones, which is not supported",
               keys.prefix()));
  }
  const auto known = std::find_if(kArchitectures.begin(), kArchitectures.end(),
                                  [&](const auto& entry) { return entry.name == arch; });
  if (known == kArchitectures.end()) {
    std::string names;
    for (const auto& entry : kArchitectures)
      names += (names.empty() ? "" : ", ") + std::string(entry.name);
    throw Error(
        ErrorKind::kUnsupported, source,
        arch.find("moe") != std::string::npos
            ? format("general.architecture is \"{}\": mixtures of experts are not supported", arch)
            : format("general.architecture is \"{}\", which is not a decoder we have", arch))
        .hint(format("supported: {} (mistral is llama)", names));
  }
  DecoderConfig out;
  out.family = known->family;
  out.architecture = std::string(known->architecture);
  if (const auto experts = keys.size("expert_count", kMaxSize); experts && *experts > 1) {
    throw Error(ErrorKind::kUnsupported, source,
                format("{}expert_count is {}: mixtures of experts are not supported", keys.prefix(),
                       *experts));
  }
  read_sizes(file, keys, problems, out);
  if (out.num_layers > 0 && out.num_heads > 0) read_arithmetic(keys, out);
  read_rope(file, keys, problems, out);
  if (const GgufTensor* embedding = file.find_tensor("token_embd.weight");
      embedding == nullptr || embedding->shape.size() != 2) {
    problems.add(format("{} is missing or not a matrix", "token_embd.weight"));
  } else {
    out.vocab_size = embedding->shape.front();
  }
  read_windows(file, keys, problems, out);
  out.use_rope.assign(static_cast<std::size_t>(out.num_layers), 1);
  out.tied_embeddings = file.find_tensor("output.weight") == nullptr;
  out.attention_bias = file.find_tensor("blk.0.attn_q.bias") != nullptr ||
                       file.find_tensor("blk.0.attn_qkv.bias") != nullptr;
  out.attention_out_bias = file.find_tensor("blk.0.attn_output.bias") != nullptr;
  out.mlp_bias = file.find_tensor("blk.0.ffn_gate.bias") != nullptr;
  out.torch_dtype = "float32";
  if (const auto eos = file.get_uint("tokenizer.ggml.eos_token_id"))
    out.eos_token_ids.push_back(static_cast<std::int64_t>(*eos));
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const auto id = file.get_uint(key))
      out.eos_token_ids.push_back(static_cast<std::int64_t>(*id));
  }
  problems.throw_if_any();
  return out;
}

}  // namespace espalier
