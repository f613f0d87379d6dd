// See tensor_names.h. The GGUF side of the table is that of the llama.cpp family of tools.
#include "espalier/models/decoder/tensor_names.h"

#include <array>
#include <charconv>
#include <span>
#include <utility>

#include "espalier/models/decoder/checkpoint.h"

namespace espalier {
namespace {

struct NamePair {
  std::string_view hf, gguf;
};

constexpr std::array kOutside{
    NamePair{"model.embed_tokens.weight", "token_embd.weight"},
    NamePair{"model.norm.weight", "output_norm.weight"},
    NamePair{"lm_head.weight", "output.weight"},
};

// Stems inside a layer; ".weight" or ".bias" follows.
constexpr std::array kInside{
    NamePair{"input_layernorm", "attn_norm"},    NamePair{"self_attn.q_proj", "attn_q"},
    NamePair{"self_attn.k_proj", "attn_k"},      NamePair{"self_attn.v_proj", "attn_v"},
    NamePair{"self_attn.qkv_proj", "attn_qkv"},  NamePair{"self_attn.o_proj", "attn_output"},
    NamePair{"self_attn.q_norm", "attn_q_norm"}, NamePair{"self_attn.k_norm", "attn_k_norm"},
    NamePair{"mlp.gate_proj", "ffn_gate"},       NamePair{"mlp.down_proj", "ffn_down"},
};
// The same tensor sits in another place, or another tensor in the same one, by architecture.
constexpr std::array kPlain{NamePair{"post_attention_layernorm", "ffn_norm"},
                            NamePair{"mlp.up_proj", "ffn_up"}};
constexpr std::array kFused{NamePair{"post_attention_layernorm", "ffn_norm"},
                            NamePair{"mlp.gate_up_proj", "ffn_up"}};
constexpr std::array kPostNorms{NamePair{"post_attention_layernorm", "post_attention_norm"},
                                NamePair{"pre_feedforward_layernorm", "ffn_norm"},
                                NamePair{"post_feedforward_layernorm", "post_ffw_norm"},
                                NamePair{"mlp.up_proj", "ffn_up"}};

std::span<const NamePair> by_family(DecoderFamily family) {
  switch (family) {
    case DecoderFamily::kPhi3:
      return kFused;
    case DecoderFamily::kGemma2:
    case DecoderFamily::kGemma3:
    case DecoderFamily::kOlmo2:
      return kPostNorms;
    default:
      return kPlain;
  }
}

constexpr std::string_view kHfLayers = "model.layers.";
constexpr std::string_view kGgufLayers = "blk.";

/// "12.mlp.up_proj.weight" -> {12, "mlp.up_proj.weight"}; {-1, ""} when it does not start with a
/// plain number and a dot.
std::pair<std::int64_t, std::string_view> split_index(std::string_view rest) {
  const std::size_t dot = rest.find('.');
  if (dot == std::string_view::npos || dot == 0 || (dot > 1 && rest.front() == '0'))
    return {-1, {}};
  std::int64_t index = -1;
  const auto result = std::from_chars(rest.data(), rest.data() + dot, index);
  if (result.ec != std::errc() || result.ptr != rest.data() + dot || index < 0) return {-1, {}};
  return {index, rest.substr(dot + 1)};
}

struct Direction {
  std::string_view from_layers, to_layers;
  std::string_view NamePair::*from;
  std::string_view NamePair::*to;
};
constexpr Direction kToGguf{kHfLayers, kGgufLayers, &NamePair::hf, &NamePair::gguf};
constexpr Direction kToHf{kGgufLayers, kHfLayers, &NamePair::gguf, &NamePair::hf};

std::string translate(std::string_view name, const Direction& way, DecoderFamily family) {
  for (const NamePair& pair : kOutside) {
    if (name == pair.*way.from) return std::string(pair.*way.to);
  }
  if (!name.starts_with(way.from_layers)) return {};
  const auto [index, leaf] = split_index(name.substr(way.from_layers.size()));
  const std::size_t dot = leaf.rfind('.');
  if (index < 0 || dot == std::string_view::npos) return {};
  const std::string_view suffix = leaf.substr(dot);
  if (suffix != ".weight" && suffix != ".bias") return {};
  for (const auto& table : {std::span<const NamePair>(kInside), by_family(family)}) {
    for (const NamePair& pair : table) {
      if (leaf.substr(0, dot) == pair.*way.from) {
        return std::string(way.to_layers) + std::to_string(index) + "." +
               std::string(pair.*way.to) + std::string(suffix);
      }
    }
  }
  return {};
}

}  // namespace

std::string layer_prefix(std::int64_t layer) {
  return std::string(kHfLayers) + std::to_string(layer) + ".";
}

std::vector<TensorSpec> layer_tensor_specs(const DecoderConfig& config) {
  const std::int64_t d = config.hidden_size, q = config.num_heads * config.head_dim,
                     kv = config.num_kv_heads * config.head_dim, ff = config.intermediate_size;
  std::vector<TensorSpec> specs;
  const auto linear = [&](const char* name, std::int64_t out, std::int64_t in, bool bias) {
    specs.push_back({std::string(name) + ".weight", {out, in}});
    if (bias) specs.push_back({std::string(name) + ".bias", {out}});
  };
  const auto norm = [&](const char* name, std::int64_t width) {
    specs.push_back({std::string(name) + ".weight", {width}});
  };
  const bool before = config.norms != NormPlacement::kAfter;
  if (before) norm("input_layernorm", d);
  if (config.fused_projections) {
    linear("self_attn.qkv_proj", q + 2 * kv, d, config.attention_bias);
  } else {
    linear("self_attn.q_proj", q, d, config.attention_bias);
    linear("self_attn.k_proj", kv, d, config.attention_bias);
    linear("self_attn.v_proj", kv, d, config.attention_bias);
  }
  linear("self_attn.o_proj", d, q, config.attention_out_bias);
  if (config.qk_norm != QkNorm::kNone) {
    const bool whole = config.qk_norm == QkNorm::kWholeWidth;
    norm("self_attn.q_norm", whole ? q : config.head_dim);
    norm("self_attn.k_norm", whole ? kv : config.head_dim);
  }
  norm("post_attention_layernorm", d);
  if (config.norms == NormPlacement::kSandwich) norm("pre_feedforward_layernorm", d);
  if (config.norms != NormPlacement::kBefore) norm("post_feedforward_layernorm", d);
  if (config.fused_projections) {
    linear("mlp.gate_up_proj", 2 * ff, d, config.mlp_bias);
  } else {
    linear("mlp.gate_proj", ff, d, config.mlp_bias);
    linear("mlp.up_proj", ff, d, config.mlp_bias);
  }
  linear("mlp.down_proj", d, ff, config.mlp_bias);
  return specs;
}

std::vector<TensorSpec> decoder_tensor_specs(const DecoderConfig& config) {
  std::vector<TensorSpec> specs{
      {"model.embed_tokens.weight", {config.vocab_size, config.hidden_size}}};
  const auto layer_specs = layer_tensor_specs(config);
  for (std::int64_t i = 0; i < config.num_layers; ++i) {
    for (const TensorSpec& spec : layer_specs)
      specs.push_back({layer_prefix(i) + spec.name, spec.shape});
  }
  specs.push_back({"model.norm.weight", {config.hidden_size}});
  if (!config.tied_embeddings)
    specs.push_back({"lm_head.weight", {config.vocab_size, config.hidden_size}});
  return specs;
}

std::int64_t layer_of_tensor(std::string_view name) {
  for (const std::string_view prefix : {kHfLayers, kGgufLayers}) {
    if (name.starts_with(prefix)) return split_index(name.substr(prefix.size())).first;
  }
  return -1;
}

std::string gguf_name_of(std::string_view hf_name, DecoderFamily family) {
  return translate(hf_name, kToGguf, family);
}
std::string hf_name_of(std::string_view gguf_name, DecoderFamily family) {
  return translate(gguf_name, kToHf, family);
}

bool gguf_stores_plus_one(const DecoderConfig& config, std::string_view hf_name) {
  return config.norm_plus_one && hf_name.ends_with("norm.weight");
}

std::vector<std::int64_t> gguf_rope_rows(std::int64_t heads, std::int64_t head_dim) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(heads * head_dim));
  const std::int64_t half = head_dim / 2;
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t j = 0; j < half; ++j) {
      for (std::int64_t t = 0; t < 2; ++t)
        rows[static_cast<std::size_t>(h * head_dim + 2 * j + t)] = h * head_dim + t * half + j;
    }
  }
  return rows;
}

}  // namespace espalier
