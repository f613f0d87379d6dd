// DecoderConfig -> GGUF keys and the tensors of rotary factors.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/surgery/model_metadata_internal.h"

namespace espalier {
namespace {

using F = DecoderFamily;

std::int64_t window_of(const DecoderConfig& config) {
  return config.window.empty() ? 0 : *std::max_element(config.window.begin(), config.window.end());
}

bool is_gemma(const DecoderConfig& config) { return config.norm_plus_one; }

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

std::vector<char> windowed_layers(const DecoderConfig& config) {
  std::vector<char> layers;
  for (const std::int64_t window : config.window) layers.push_back(window > 0 ? 1 : 0);
  return layers;
}

Error unsupported(const DecoderConfig& config, std::string message) {
  return Error(ErrorKind::kUnsupported, config.architecture, message)
      .hint("keep this model as a Hugging Face folder");
}

/// llama3's factors go into a tensor that only readers of llama files take, longrope's into two
/// that only phi3's do here.
void check_rope(const DecoderConfig& config) {
  const std::string_view arch = gguf_architecture(config.family);
  if (std::find(config.use_rope.begin(), config.use_rope.end(), 0) != config.use_rope.end()) {
    throw unsupported(config, format("some layers have no rotary embedding, which the GGUF "
                                     "architecture {} cannot say",
                                     arch));
  }
  const auto kind = config.rope_scaling.kind;
  const bool llama3 = kind == RopeScaling::Kind::kLlama3 || !config.rope_factors.empty();
  if (llama3 && arch != "llama")
    throw unsupported(config, format("rotary scaling llama3 is not part of the GGUF architecture "
                                     "{}",
                                     arch));
  if (kind == RopeScaling::Kind::kLongrope && config.family != F::kPhi3)
    throw unsupported(config,
                      format("rotary scaling longrope is written for phi3 only, this is {}", arch));
}

/// What readers of gemma files take for granted.
void check_gemma(const DecoderConfig& config) {
  const std::string_view arch = gguf_architecture(config.family);
  const std::int64_t usual = gguf_window_period(config.family);
  if (window_of(config) > 0 && !find_window_period(windowed_layers(config), usual)) {
    throw unsupported(config, format("the layers without a window are no regular pattern, and the "
                                     "GGUF architecture {} knows a period only ({} unless told)",
                                     arch, usual));
  }
  const double scale = gguf_attention_scale(config);
  if (std::abs(scale - config.attention_scale) > 1e-6 * scale) {
    throw unsupported(
        config, format("readers of {} files of {} layers divide scores by sqrt({:.6g}), this model "
                       "by sqrt({:.6g}) (query_pre_attn_scalar), which no key can say",
                       arch, config.num_layers, 1 / (scale * scale),
                       1 / (config.attention_scale * config.attention_scale)));
  }
  if (config.family != F::kGemma2) return;
  if (config.attention_softcap == 0 || config.final_softcap == 0)
    throw unsupported(config,
                      "a soft cap is off, and readers of gemma2 files always apply both caps");
  if (!config.tied_embeddings)
    throw unsupported(config,
                      "has an lm_head of its own, and readers of gemma2 files take the embedding");
}

void check_expressible(const DecoderConfig& config, std::vector<std::string>& warnings) {
  check_rope(config);
  if (is_gemma(config)) return check_gemma(config);
  if (!has_window(config)) return;
  if (std::adjacent_find(config.window.begin(), config.window.end(), std::not_equal_to<>()) !=
      config.window.end()) {
    throw unsupported(config, format("the sliding window differs between layers, which the GGUF "
                                     "architecture {} cannot say",
                                     gguf_architecture(config.family)));
  }
  warnings.push_back(format(
      "the sliding window of {} tokens is written, but llama.cpp ignores it for this architecture: "
      "outputs differ beyond {} tokens",
      config.window.front(), config.window.front()));
}

void add_gemma(const DecoderConfig& config, MetadataList& list) {
  if (config.attention_softcap > 0) list.f32("attn_logit_softcapping", config.attention_softcap);
  if (config.final_softcap > 0) list.f32("final_logit_softcapping", config.final_softcap);
  const std::int64_t window = window_of(config), usual = gguf_window_period(config.family);
  // Readers of gemma2 files suppose a window of 4096 where none is named.
  if (window > 0 || config.family == F::kGemma2)
    list.u32("attention.sliding_window", window > 0 ? window : config.context_length);
  if (window == 0) return;
  const std::int64_t period = find_window_period(windowed_layers(config), usual).value();
  if (period != usual) list.u32("attention.sliding_window_pattern", period);
  if (config.family == F::kGemma3) list.f32("rope.freq_base_swa", config.local_rope_theta);
}

void add_rope(const DecoderConfig& config, MetadataList& list) {
  const RopeScaling& scaling = config.rope_scaling;
  list.u32("rope.dimension_count", config.rotary_size());
  list.f32("rope.freq_base", config.rope_theta);
  if (scaling.kind == RopeScaling::Kind::kLinear) {
    list.string("rope.scaling.type", "linear");
    list.f32("rope.scaling.factor", scaling.factor);
  }
  if (config.family != F::kPhi3) return;
  const bool longrope = scaling.kind == RopeScaling::Kind::kLongrope;
  list.u32("rope.scaling.original_context_length",
           longrope ? static_cast<std::int64_t>(scaling.original_context) : config.context_length);
  if (longrope) list.f32("rope.scaling.attn_factor", scaling.attention_factor);
}

}  // namespace

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
  if (is_gemma(config))
    add_gemma(config, list);
  else if (has_window(config))
    list.u32("attention.sliding_window", config.window.front());
  else if (config.family == F::kPhi3)
    list.u32("attention.sliding_window", 0);  // some readers suppose one where the key is absent
  add_rope(config, list);
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

std::vector<std::pair<std::string, std::vector<float>>> gguf_rope_factors(
    const DecoderConfig& config) {
  const auto floats = [](const std::vector<double>& values) {
    return std::vector<float>(values.begin(), values.end());
  };
  if (!config.rope_factors.empty()) return {{"rope_freqs.weight", floats(config.rope_factors)}};
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind == RopeScaling::Kind::kLongrope)
    return {{"rope_factors_long.weight", floats(scaling.long_factors)},
            {"rope_factors_short.weight", floats(scaling.short_factors)}};
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
  return {{"rope_freqs.weight", factors}};
}

}  // namespace espalier
