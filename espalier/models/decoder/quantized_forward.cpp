// See quantized_forward.h.
#include "espalier/models/decoder/quantized_forward.h"

#include <algorithm>

#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/attention/attention.h"
#include "espalier/kernels/gguf_quants/gguf_dot.h"
#include "espalier/kernels/rms_norm/rms_norm.h"
#include "espalier/kernels/swiglu/swiglu.h"
#include "espalier/models/decoder/block_internal.h"
#include "espalier/models/decoder/rope_tables.h"
#include "espalier/models/decoder/tensor_names.h"

namespace espalier {
namespace {

// Weight pages resident at a time: large enough that the threads' start is nothing, small against
// the promise of 150 MiB.
constexpr std::int64_t kSliceBytes = 16 << 20;

std::span<float> floats(const at::Tensor& x) {
  return {x.mutable_data_ptr<float>(), static_cast<std::size_t>(x.numel())};
}

/// A vector (norm weight, bias) as float32.
at::Tensor vector_of(const StoredWeight& weight) {
  at::Tensor out = at::empty(weight.shape, at::kFloat);
  dequantize(weight.type, weight.data, floats(out));
  weight.file->release(weight.data);
  return weight.offset == 0 ? out : out.sub_(weight.offset);
}

/// Columns of `y` from the row order of llama-arch GGUF files to that of Hugging Face.
at::Tensor unpermuted(const at::Tensor& y, std::int64_t heads) {
  if (heads == 0) return y;
  const auto order = gguf_rope_rows(heads, y.size(-1) / heads);
  return at::empty_like(y).index_copy_(-1, at::tensor(order, at::kLong), y);
}

class Forward {
 public:
  Forward(const DecoderCheckpoint& checkpoint, std::int64_t tokens)
      : checkpoint_(checkpoint), config_(checkpoint.config()) {
    rope_ = rope_tables(rope_frequencies(config_), at::arange(tokens, at::kLong), tokens,
                        at::kFloat, at::kCPU);
  }

  at::Tensor embed(const std::vector<std::int64_t>& ids) const {
    const StoredWeight weight = checkpoint_.stored("model.embed_tokens.weight");
    const auto row_bytes = static_cast<std::size_t>(gguf_bytes(weight.type, config_.hidden_size));
    at::Tensor h =
        at::empty({static_cast<std::int64_t>(ids.size()), config_.hidden_size}, at::kFloat);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto row = weight.data.subspan(static_cast<std::size_t>(ids[i]) * row_bytes, row_bytes);
      dequantize(weight.type, row, floats(h[static_cast<std::int64_t>(i)]));
      weight.file->release(row);
    }
    return config_.scaled_embedding ? h.mul_(embedding_scale(config_, at::kFloat)) : h;
  }

  at::Tensor layer(const at::Tensor& h, std::int64_t index) const {
    const std::string prefix = layer_prefix(index);
    const bool before = config_.norms == NormPlacement::kBefore;
    const at::Tensor x = norm(h, prefix + "input_layernorm");
    at::Tensor attended = linear(attend(x, prefix, index), prefix + "self_attn.o_proj");
    if (!before) attended = norm(attended, prefix + "post_attention_layernorm");
    const at::Tensor middle = h + attended;
    const at::Tensor z =
        norm(middle, prefix + (before ? "post_attention_layernorm" : "pre_feedforward_layernorm"));
    return middle + norm(linear(gated(z, prefix), prefix + "mlp.down_proj"),
                         prefix + "post_feedforward_layernorm");
  }

 private:
  at::Tensor vector(const std::string& name) const { return vector_of(checkpoint_.stored(name)); }

  /// x as it is where the model has no such norm.
  at::Tensor norm(const at::Tensor& x, const std::string& name) const {
    if (!checkpoint_.has(name + ".weight")) return x;
    const at::Tensor weight = vector(name + ".weight");
    return rms_norm(x, config_.norm_plus_one ? weight + 1 : weight, config_.rms_norm_eps);
  }

  at::Tensor gated(const at::Tensor& z, const std::string& prefix) const {
    at::Tensor gate, up;
    if (config_.fused_projections) {
      const auto halves = linear(z, prefix + "mlp.gate_up_proj").chunk(2, 1);
      gate = halves[0].contiguous(), up = halves[1].contiguous();
    } else {
      gate = linear(z, prefix + "mlp.gate_proj"), up = linear(z, prefix + "mlp.up_proj");
    }
    return config_.gelu ? gelu_mul(gate, up) : silu_mul_(gate, up);
  }

  /// x [tokens, in] -> [tokens, out], rows in Hugging Face order.
  at::Tensor linear(const at::Tensor& x, const std::string& name) const {
    const StoredWeight weight = checkpoint_.stored(name + ".weight");
    const std::int64_t out = weight.shape[0], in = weight.shape[1],
                       row_bytes = gguf_bytes(weight.type, in);
    const at::Tensor input = x.contiguous();
    const std::int64_t rows = std::max<std::int64_t>(1, kSliceBytes / row_bytes);
    std::vector<at::Tensor> parts;
    for (std::int64_t first = 0; first < out; first += rows) {
      const std::int64_t count = std::min(rows, out - first);
      const auto slice = weight.data.subspan(static_cast<std::size_t>(first * row_bytes),
                                             static_cast<std::size_t>(count * row_bytes));
      parts.push_back(at::empty({input.size(0), count}, at::kFloat));
      quantized_linear(weight.type, slice, count, in, floats(input), input.size(0),
                       floats(parts.back()));
      weight.file->release(slice);
    }
    const at::Tensor y =
        unpermuted(parts.size() == 1 ? parts.front() : at::cat(parts, 1), weight.permuted_heads);
    if (!checkpoint_.has(name + ".bias")) return y;
    const StoredWeight bias = checkpoint_.stored(name + ".bias");
    return y + unpermuted(vector_of(bias), bias.permuted_heads);
  }

  /// Queries, keys and values [tokens, heads * head_dim].
  std::vector<at::Tensor> project(const at::Tensor& x, const std::string& prefix) const {
    if (!config_.fused_projections) {
      return {linear(x, prefix + "self_attn.q_proj"), linear(x, prefix + "self_attn.k_proj"),
              linear(x, prefix + "self_attn.v_proj")};
    }
    const std::int64_t q = config_.num_heads * config_.head_dim,
                       kv = config_.num_kv_heads * config_.head_dim;
    return linear(x, prefix + "self_attn.qkv_proj").split_with_sizes({q, kv, kv}, 1);
  }

  at::Tensor attend(const at::Tensor& x, const std::string& prefix, std::int64_t index) const {
    const std::int64_t tokens = x.size(0);
    std::vector<at::Tensor> parts = project(x, prefix);
    const auto heads = [&](at::Tensor y, std::int64_t count, const char* norm_name) {
      y = y.contiguous();
      if (config_.qk_norm == QkNorm::kWholeWidth) y = norm(y, prefix + norm_name);
      y = y.view({1, tokens, count, config_.head_dim});
      return config_.qk_norm == QkNorm::kPerHead ? norm(y, prefix + norm_name) : y;
    };
    at::Tensor q = heads(parts[0], config_.num_heads, "self_attn.q_norm"),
               k = heads(parts[1], config_.num_kv_heads, "self_attn.k_norm");
    const at::Tensor v = parts[2].contiguous().view(k.sizes());
    AttentionOptions options(config_.window[static_cast<std::size_t>(index)]);
    options.scale = config_.attention_scale;
    options.softcap = config_.attention_softcap;
    if (config_.use_rope[static_cast<std::size_t>(index)] != 0) {
      q = turn(q, rope_, options.window > 0);
      k = turn(k, rope_, options.window > 0);
    }
    return causal_attention(q, k.transpose(1, 2), v.transpose(1, 2), options)
        .reshape({tokens, config_.num_heads * config_.head_dim});
  }

  const DecoderCheckpoint& checkpoint_;
  const DecoderConfig& config_;
  RopeTables rope_;
};

}  // namespace

at::Tensor last_hidden(const DecoderCheckpoint& checkpoint,
                       const std::vector<std::int64_t>& kept_layers,
                       const std::vector<std::int64_t>& ids, const LayerWatcher& watch) {
  c10::NoGradGuard no_grad;
  const DecoderConfig& config = checkpoint.config();
  const std::string subject = checkpoint.path().string();
  if (ids.empty()) throw Error(ErrorKind::kInput, subject, "no token ids were given");
  for (const std::int64_t id : ids) {
    if (id < 0 || id >= config.vocab_size)
      throw Error(ErrorKind::kInput, subject,
                  format("token id {} is outside the vocabulary of {}", id, config.vocab_size));
  }
  for (const std::int64_t layer : kept_layers) {
    if (layer < 0 || layer >= config.num_layers)
      throw Error(ErrorKind::kInput, subject,
                  format("layer {} is outside 0-{}", layer, config.num_layers - 1));
  }
  const Forward forward(checkpoint, static_cast<std::int64_t>(ids.size()));
  at::Tensor h = forward.embed(ids);
  if (watch) watch(-1, h);
  for (std::size_t i = 0; i < kept_layers.size(); ++i) {
    h = forward.layer(h, kept_layers[i]);
    if (watch) watch(static_cast<std::int64_t>(i), h);
  }
  return h;
}

}  // namespace espalier
