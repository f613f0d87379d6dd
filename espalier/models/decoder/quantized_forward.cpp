// See quantized_forward.h.
#include "espalier/models/decoder/quantized_forward.h"

#include <algorithm>

#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/attention/attention.h"
#include "espalier/kernels/gguf_quants/gguf_dot.h"
#include "espalier/kernels/rms_norm/rms_norm.h"
#include "espalier/kernels/rope/rope.h"
#include "espalier/kernels/swiglu/swiglu.h"
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
  return out;
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
    std::tie(cos_, sin_) = rope_tables(rope_inverse_frequencies(config_),
                                       at::arange(tokens, at::kLong), at::kFloat, at::kCPU);
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
    return h;
  }

  at::Tensor layer(const at::Tensor& h, std::int64_t index) const {
    const std::string prefix = layer_prefix(index);
    const at::Tensor x =
        rms_norm(h, vector(prefix + "input_layernorm.weight"), config_.rms_norm_eps);
    const at::Tensor middle = h + linear(attend(x, prefix, index), prefix + "self_attn.o_proj");
    const at::Tensor z =
        rms_norm(middle, vector(prefix + "post_attention_layernorm.weight"), config_.rms_norm_eps);
    const at::Tensor gated =
        silu_mul_(linear(z, prefix + "mlp.gate_proj"), linear(z, prefix + "mlp.up_proj"));
    return middle + linear(gated, prefix + "mlp.down_proj");
  }

 private:
  at::Tensor vector(const std::string& name) const { return vector_of(checkpoint_.stored(name)); }

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

  at::Tensor attend(const at::Tensor& x, const std::string& prefix, std::int64_t index) const {
    const std::int64_t tokens = x.size(0);
    const auto heads = [&](const char* name, std::int64_t count) {
      return linear(x, prefix + name).view({1, tokens, count, config_.head_dim});
    };
    at::Tensor q = heads("self_attn.q_proj", config_.num_heads),
               k = heads("self_attn.k_proj", config_.num_kv_heads);
    const at::Tensor v = heads("self_attn.v_proj", config_.num_kv_heads);
    if (config_.use_rope[static_cast<std::size_t>(index)] != 0) {
      q = rope_(q, cos_, sin_);
      k = rope_(k, cos_, sin_);
    }
    const std::int64_t window = config_.window[static_cast<std::size_t>(index)];
    return causal_attention(q, k.transpose(1, 2), v.transpose(1, 2), window)
        .reshape({tokens, config_.num_heads * config_.head_dim});
  }

  const DecoderCheckpoint& checkpoint_;
  const DecoderConfig& config_;
  at::Tensor cos_, sin_;  // [tokens, head_dim]
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
