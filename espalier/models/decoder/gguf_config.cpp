// GGUF metadata -> DecoderConfig. What Hugging Face says in config.json, a GGUF file says by keys
// under its architecture's name and by which tensors exist.
#include <algorithm>
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

/// rope_freqs.weight as numbers; and, when they are what Llama 3.x models use, the settings they
/// came from.
void read_rope_factors(const GgufFile& file, ProblemList& problems, DecoderConfig& out) {
  const GgufTensor* tensor = file.find_tensor("rope_freqs.weight");
  if (tensor == nullptr || out.head_dim == 0) return;
  if (tensor->type != GgufType::kF32 || tensor->numel() != out.head_dim / 2) {
    problems.add(format("rope_freqs.weight has {} elements of type {}, expected {} of F32",
                        tensor->numel(), gguf_type_info(tensor->type).name, out.head_dim / 2));
    return;
  }
  std::vector<float> values(static_cast<std::size_t>(tensor->numel()));
  dequantize(tensor->type, tensor->data, values);
  for (const float v : values) {
    if (!std::isfinite(v) || v <= 0) {
      problems.add(format("rope_freqs.weight holds {}, expected positive numbers", v));
      return;
    }
  }
  out.rope_factors.assign(values.begin(), values.end());
  RopeScaling guess;
  guess.kind = RopeScaling::Kind::kLlama3;
  guess.factor = *std::max_element(values.begin(), values.end());
  const auto expected = llama3_factors(out, guess);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (std::abs(expected[i] - out.rope_factors[i]) > 1e-4 * expected[i]) return;
  }
  out.rope_scaling = guess;
}

void read_rope(const GgufFile& file, GgufKeys& keys, ProblemList& problems, DecoderConfig& out) {
  out.rope_theta = keys.number_or("rope.freq_base", 10000);
  if (const auto rotary = keys.size("rope.dimension_count", kMaxWidth);
      rotary && *rotary != out.head_dim && out.head_dim != 0) {
    throw Error(ErrorKind::kUnsupported, file.path().string(),
                format("rope.dimension_count is {}, head size {}: partial rotary embedding",
                       *rotary, out.head_dim));
  }
  const std::string scaling = keys.text("rope.scaling.type");
  const double factor =
      keys.number_or("rope.scaling.factor", keys.number_or("rope.scale_linear", 0));
  if (scaling == "linear" || (scaling.empty() && factor > 0 && factor != 1)) {
    out.rope_scaling.kind = RopeScaling::Kind::kLinear;
    out.rope_scaling.factor = factor > 0 ? factor : 1;
  } else if (!scaling.empty() && scaling != "none") {
    throw Error(ErrorKind::kUnsupported, file.path().string(),
                format("rope.scaling.type is \"{}\", we have none and linear", scaling));
  }
  read_rope_factors(file, problems, out);
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

DecoderConfig parse_gguf_decoder_config(const GgufFile& file) {
  const std::string source = file.path().string();
  const std::string arch = file.architecture();
  if (arch != "llama" && arch != "qwen2") {
    throw Error(
        ErrorKind::kUnsupported, source,
        format("general.architecture is \"{}\", we have llama (with mistral) and qwen2", arch));
  }
  ProblemList problems(ErrorKind::kInput, source);
  GgufKeys keys(file, problems);
  DecoderConfig out;
  out.family = arch == "llama" ? DecoderFamily::kLlama : DecoderFamily::kQwen2;
  out.architecture = arch == "llama" ? "LlamaForCausalLM" : "Qwen2ForCausalLM";
  if (const auto experts = keys.size("expert_count", kMaxSize); experts && *experts > 1) {
    throw Error(ErrorKind::kUnsupported, source,
                format("{}expert_count is {}: mixtures of experts are not supported", keys.prefix(),
                       *experts));
  }
  read_sizes(file, keys, problems, out);
  read_rope(file, keys, problems, out);
  if (const GgufTensor* embedding = file.find_tensor("token_embd.weight");
      embedding == nullptr || embedding->shape.size() != 2) {
    problems.add(format("{} is missing or not a matrix", "token_embd.weight"));
  } else {
    out.vocab_size = embedding->shape.front();
  }
  const std::int64_t window = keys.size("attention.sliding_window", kMaxSize).value_or(0);
  out.window.assign(static_cast<std::size_t>(out.num_layers), window);
  out.use_rope.assign(static_cast<std::size_t>(out.num_layers), 1);
  out.tied_embeddings = file.find_tensor("output.weight") == nullptr;
  out.attention_bias = file.find_tensor("blk.0.attn_q.bias") != nullptr;
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
