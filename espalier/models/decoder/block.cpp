// The arithmetic of one decoder block: norm, attention with rotary embedding, residual, norm, gated
// MLP, residual.
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

/// q [1, total, heads, d], k and v [1, total, kv_heads, d] -> [1, total, heads, d]; rows do not see
/// each other.
at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<std::int64_t>& starts, std::int64_t window) {
  ESPALIER_ASSERT(q.size(0) == 1 && starts.size() >= 2 && starts.back() == q.size(1));
  if (equal_lengths(starts)) {
    const auto rows = static_cast<std::int64_t>(starts.size()) - 1;
    const auto split = [&](const at::Tensor& x) {
      return x.reshape({rows, starts[1], x.size(2), x.size(3)});
    };
    return causal_attention(split(q), split(k).transpose(1, 2), split(v).transpose(1, 2), window)
        .reshape(q.sizes());
  }
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    const auto row = [&](const at::Tensor& x) {
      return x.narrow(1, starts[i], starts[i + 1] - starts[i]);
    };
    out.push_back(causal_attention(row(q), row(k).transpose(1, 2), row(v).transpose(1, 2), window));
  }
  return at::cat(out, 1);
}

at::Tensor attend(const DecoderBlock& block, const DecoderConfig& config, const at::Tensor& x,
                  const AttentionContext& context, const CacheSlot& cache) {
  const std::int64_t batch = x.size(0), tokens = x.size(1);
  const Attention& attn = block.self_attn;
  const auto heads = [&](const at::Tensor& y, std::int64_t count) {
    return y.view({batch, tokens, count, config.head_dim});
  };
  at::Tensor q = heads(attn.q_proj(x), config.num_heads);
  at::Tensor k = heads(attn.k_proj(x), config.num_kv_heads);
  const at::Tensor v = heads(attn.v_proj(x), config.num_kv_heads);
  if (block.use_rope) {
    q = rope_(q, context.cos, context.sin);
    k = rope_(k, context.cos, context.sin);
  }
  at::Tensor out;
  if (cache.keys != nullptr) {
    ESPALIER_ASSERT(context.row_starts.empty());
    cache.keys->narrow(2, cache.start, tokens).copy_(k.transpose(1, 2));
    cache.values->narrow(2, cache.start, tokens).copy_(v.transpose(1, 2));
    const std::int64_t length = cache.start + tokens;
    out = causal_attention(q, cache.keys->narrow(2, 0, length), cache.values->narrow(2, 0, length),
                           block.window);
  } else if (!context.row_starts.empty()) {
    out = packed_attention(q, k, v, context.row_starts, block.window);
  } else {
    out = causal_attention(q, k.transpose(1, 2), v.transpose(1, 2), block.window);
  }
  return attn.o_proj(out.reshape({batch, tokens, config.num_heads * config.head_dim}));
}

}  // namespace

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
  block->input_layernorm = {get("input_layernorm.weight"), config.rms_norm_eps};
  block->self_attn.q_proj = linear("self_attn.q_proj", config.attention_bias);
  block->self_attn.k_proj = linear("self_attn.k_proj", config.attention_bias);
  block->self_attn.v_proj = linear("self_attn.v_proj", config.attention_bias);
  block->self_attn.o_proj = linear("self_attn.o_proj", config.attention_out_bias);
  block->post_attention_layernorm = {get("post_attention_layernorm.weight"), config.rms_norm_eps};
  block->mlp.gate_proj = linear("mlp.gate_proj", config.mlp_bias);
  block->mlp.up_proj = linear("mlp.up_proj", config.mlp_bias);
  block->mlp.down_proj = linear("mlp.down_proj", config.mlp_bias);
  block->window = config.window[static_cast<std::size_t>(layer)];
  block->use_rope = config.use_rope[static_cast<std::size_t>(layer)] != 0;
  return block;
}

at::Tensor run_block(const DecoderBlock& block, const DecoderConfig& config, const at::Tensor& h,
                     const AttentionContext& context, const CacheSlot& cache) {
  ESPALIER_ASSERT(h.dim() == 3 && h.size(2) == config.hidden_size);
  const at::Tensor middle =
      add_residual(h, attend(block, config, block.input_layernorm(h), context, cache));
  return add_residual(middle, block.mlp(block.post_attention_layernorm(middle)));
}

}  // namespace espalier
