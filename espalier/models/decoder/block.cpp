// The arithmetic of one decoder block: attention with rotary embedding and a gated MLP, each added
// to the residual stream, with norms before, after or around them.
#include <cmath>

#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/kernels/attention/attention.h"
#include "espalier/kernels/autograd_internal.h"
#include "espalier/kernels/rope/rope.h"
#include "espalier/models/decoder/block_internal.h"
#include "espalier/models/decoder/tensor_names.h"

namespace espalier {
namespace {

/// residual + fresh, into `fresh` (nobody else holds it) unless autograd needs both.
at::Tensor add_residual(const at::Tensor& residual, at::Tensor fresh) {
  if (needs_grad(residual, fresh)) return residual + fresh;
  return fresh.add_(residual);
}

bool equal_lengths(const std::vector<std::int64_t>& starts) {
  for (std::size_t i = 2; i < starts.size(); ++i) {
    if (starts[i] - starts[i - 1] != starts[1]) return false;
  }
  return true;
}

/// q [1, total, heads, d], k and v [1, total, kv_heads, d] -> [1, total, heads, d]; a row sees
/// itself and its prefix.
at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionContext& context, const AttentionOptions& options) {
  const std::vector<std::int64_t>&starts = context.row_starts, &prefixes = context.row_prefixes;
  ESPALIER_ASSERT(q.size(0) == 1 && starts.size() >= 2 && starts.back() == q.size(1));
  if (prefixes.empty() && equal_lengths(starts)) {
    const auto rows = static_cast<std::int64_t>(starts.size()) - 1;
    const auto split = [&](const at::Tensor& x) {
      return x.reshape({rows, starts[1], x.size(2), x.size(3)});
    };
    return causal_attention(split(q), split(k).transpose(1, 2), split(v).transpose(1, 2), options)
        .reshape(q.sizes());
  }
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    const auto row = [&](const at::Tensor& x, std::size_t at) {
      return x.narrow(1, starts[at], starts[at + 1] - starts[at]);
    };
    const auto seen = [&](const at::Tensor& x) {
      if (prefixes.empty() || prefixes[i] < 0) return row(x, i).transpose(1, 2);
      return at::cat({row(x, static_cast<std::size_t>(prefixes[i])), row(x, i)}, 1).transpose(1, 2);
    };
    out.push_back(causal_attention(row(q, i), seen(k), seen(v), options));
  }
  return at::cat(out, 1);
}

struct Qkv {
  at::Tensor q, k, v;  // [batch, tokens, heads, head_dim]
};

/// Projections, normalised where the model does, before the rotary embedding.
Qkv project(const Attention& attn, const DecoderConfig& config, const at::Tensor& x) {
  std::vector<at::Tensor> parts;
  if (attn.qkv_proj.defined()) {
    const std::int64_t q = config.num_heads * config.head_dim,
                       kv = config.num_kv_heads * config.head_dim;
    for (const at::Tensor& part : attn.qkv_proj(x).split_with_sizes({q, kv, kv}, -1))
      parts.push_back(part.contiguous());
  } else {
    parts = linear_group(x, {&attn.q_proj, &attn.k_proj, &attn.v_proj});
  }
  const bool whole = config.qk_norm == QkNorm::kWholeWidth,
             each = config.qk_norm == QkNorm::kPerHead;
  const auto heads = [&](at::Tensor y, std::int64_t count, const RmsNorm* norm) {
    if (norm != nullptr && whole) y = (*norm)(y);
    y = y.view({x.size(0), x.size(1), count, config.head_dim});
    return norm != nullptr && each ? (*norm)(y) : y;
  };
  return {heads(parts[0], config.num_heads, &attn.q_norm),
          heads(parts[1], config.num_kv_heads, &attn.k_norm),
          heads(parts[2], config.num_kv_heads, nullptr)};
}

AttentionOptions options_of(const DecoderBlock& block, const DecoderConfig& config) {
  AttentionOptions options(block.window);
  options.scale = config.attention_scale;
  options.softcap = config.attention_softcap;
  return options;
}

at::Tensor attend(const DecoderBlock& block, const DecoderConfig& config, const at::Tensor& x,
                  const AttentionContext& context, const CacheSlot& cache) {
  const std::int64_t batch = x.size(0), tokens = x.size(1);
  const AttentionOptions options = options_of(block, config);
  auto [q, k, v] = project(block.self_attn, config, x);
  if (block.use_rope) {
    q = turn(q, context.rope, block.window > 0);
    k = turn(k, context.rope, block.window > 0);
  }
  at::Tensor out;
  if (cache.keys != nullptr) {
    ESPALIER_ASSERT(context.row_starts.empty());
    cache.keys->narrow(2, cache.start, tokens).copy_(k.transpose(1, 2));
    cache.values->narrow(2, cache.start, tokens).copy_(v.transpose(1, 2));
    const std::int64_t length = cache.start + tokens;
    out = causal_attention(q, cache.keys->narrow(2, 0, length), cache.values->narrow(2, 0, length),
                           options);
  } else if (!context.row_starts.empty()) {
    out = packed_attention(q, k, v, context, options);
  } else {
    out = causal_attention(q, k.transpose(1, 2), v.transpose(1, 2), options);
  }
  return block.self_attn.o_proj(out.reshape({batch, tokens, config.num_heads * config.head_dim}));
}

template <class GetLinear, class GetNorm>
void load_attention(const DecoderConfig& config, const GetLinear& linear, const GetNorm& norm,
                    Attention& attn) {
  if (config.fused_projections) {
    attn.qkv_proj = linear("self_attn.qkv_proj", config.attention_bias);
  } else {
    attn.q_proj = linear("self_attn.q_proj", config.attention_bias);
    attn.k_proj = linear("self_attn.k_proj", config.attention_bias);
    attn.v_proj = linear("self_attn.v_proj", config.attention_bias);
  }
  attn.o_proj = linear("self_attn.o_proj", config.attention_out_bias);
  if (config.qk_norm == QkNorm::kNone) return;
  attn.q_norm = norm("self_attn.q_norm");
  attn.k_norm = norm("self_attn.k_norm");
}

}  // namespace

double embedding_scale(const DecoderConfig& config, at::ScalarType type) {
  const double exact = std::sqrt(static_cast<double>(config.hidden_size));
  return at::scalar_tensor(exact, at::TensorOptions().dtype(type)).item<double>();
}

at::Tensor turn(const at::Tensor& x, const RopeTables& tables, bool local) {
  const bool own = local && tables.local_cos.defined();
  const at::Tensor& cos = own ? tables.local_cos : tables.cos;
  const at::Tensor& sin = own ? tables.local_sin : tables.sin;
  const std::int64_t turned = cos.size(-1), all = x.size(-1);
  if (turned == all) return rope_(x, cos, sin);
  return at::cat(
      {rope_(x.narrow(-1, 0, turned).contiguous(), cos, sin), x.narrow(-1, turned, all - turned)},
      -1);
}

std::shared_ptr<DecoderBlock> load_block(const DecoderCheckpoint& checkpoint, std::int64_t layer,
                                         at::ScalarType type, at::Device device) {
  c10::NoGradGuard no_grad;
  const DecoderConfig& config = checkpoint.config();
  const std::string prefix = layer_prefix(layer);
  auto block = std::make_shared<DecoderBlock>();
  const auto get = [&](const std::string& name) {
    return checkpoint.load(prefix + name, type, device);
  };
  const auto linear = [&](const std::string& name, bool bias) {
    return Linear{get(name + ".weight"), bias ? get(name + ".bias") : at::Tensor()};
  };
  const auto norm = [&](const std::string& name) {
    return RmsNorm{get(name + ".weight"), config.rms_norm_eps, config.norm_plus_one};
  };
  if (config.norms != NormPlacement::kAfter) block->input_layernorm = norm("input_layernorm");
  load_attention(config, linear, norm, block->self_attn);
  block->post_attention_layernorm = norm("post_attention_layernorm");
  if (config.norms == NormPlacement::kSandwich)
    block->pre_feedforward_layernorm = norm("pre_feedforward_layernorm");
  if (config.norms != NormPlacement::kBefore)
    block->post_feedforward_layernorm = norm("post_feedforward_layernorm");
  if (config.fused_projections) {
    block->mlp.gate_up_proj = linear("mlp.gate_up_proj", config.mlp_bias);
  } else {
    block->mlp.gate_proj = linear("mlp.gate_proj", config.mlp_bias);
    block->mlp.up_proj = linear("mlp.up_proj", config.mlp_bias);
  }
  block->mlp.down_proj = linear("mlp.down_proj", config.mlp_bias);
  block->mlp.gelu = config.gelu;
  block->window = config.window[static_cast<std::size_t>(layer)];
  block->use_rope = config.use_rope[static_cast<std::size_t>(layer)] != 0;
  return block;
}

at::Tensor run_block(const DecoderBlock& block, const DecoderConfig& config, const at::Tensor& h,
                     const AttentionContext& context, const CacheSlot& cache) {
  ESPALIER_ASSERT(h.dim() == 3 && h.size(2) == config.hidden_size);
  const auto optional = [](const RmsNorm& norm, const at::Tensor& x) {
    return norm.defined() ? norm(x) : x;
  };
  const bool before = config.norms == NormPlacement::kBefore;
  at::Tensor attended = attend(block, config, optional(block.input_layernorm, h), context, cache);
  if (!before) attended = block.post_attention_layernorm(attended);
  const at::Tensor middle = add_residual(h, attended);
  const RmsNorm& entry = before ? block.post_attention_layernorm : block.pre_feedforward_layernorm;
  return add_residual(
      middle, optional(block.post_feedforward_layernorm, block.mlp(optional(entry, middle))));
}

}  // namespace espalier
