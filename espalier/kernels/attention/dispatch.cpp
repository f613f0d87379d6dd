// Checks and choice of backend: our CPU kernel for whole rows without a gradient, libtorch's fused
// kernels otherwise.
#include <cmath>
#include <vector>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/kernels/attention/attention.h"
#include "espalier/kernels/attention/kernels_internal.h"
#include "espalier/kernels/autograd_internal.h"

namespace espalier {
namespace {

/// [tokens, positions], true where a query may look.
at::Tensor visible(std::int64_t tokens, std::int64_t positions, std::int64_t window,
                   at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  const at::Tensor query = at::arange(positions - tokens, positions, options).unsqueeze(1);
  const at::Tensor key = at::arange(positions, options).unsqueeze(0);
  at::Tensor mask = key.le(query);
  if (window > 0) mask = mask.logical_and(key.gt(query - window));
  return mask;
}

/// [batch, kv_heads, positions, d] -> [batch, heads, positions, d]: each key head repeated for its
/// group of queries.
at::Tensor repeat_heads(const at::Tensor& x, std::int64_t groups) {
  if (groups == 1) return x;
  return x.unsqueeze(2)
      .expand({x.size(0), x.size(1), groups, x.size(2), x.size(3)})
      .reshape({x.size(0), x.size(1) * groups, x.size(2), x.size(3)});
}

bool has_kernel(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const bool type = q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16;
  const bool same = k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type();
  const bool contiguous = q.stride(3) == 1 && k.stride(3) == 1 && v.stride(3) == 1;
  return type && same && contiguous && q.device().is_cpu() && has_attention_cpu(q.size(3));
}

float default_scale(std::int64_t head_dim) {
  return 1.0f / std::sqrt(static_cast<float>(head_dim));
}

/// Scores whole in memory, which a softcap needs: no fused kernel of libtorch has one.
at::Tensor composed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const AttentionOptions& o) {
  const std::int64_t groups = q.size(2) / k.size(1), tokens = q.size(1), positions = k.size(2);
  const double scale = o.scale > 0 ? o.scale : default_scale(q.size(3));
  if (q.device().is_cpu() && q.size(0) > 1) {
    std::vector<at::Tensor> rows;
    for (std::int64_t i = 0; i < q.size(0); ++i)
      rows.push_back(composed(q.narrow(0, i, 1), k.narrow(0, i, 1), v.narrow(0, i, 1), o));
    return at::cat(rows);
  }
  // Copies of one row's own: a product's bits depend on the alignment of its matrices, and must not
  // depend on the batch or pack a row was cut from.
  const auto own = [](const at::Tensor& x) { return x.clone(at::MemoryFormat::Contiguous); };
  const at::Tensor queries = own(q.transpose(1, 2)), keys = own(repeat_heads(k, groups)),
                   values = own(repeat_heads(v, groups));
  at::Tensor scores = at::matmul(queries, keys.transpose(2, 3)) * scale;
  if (o.softcap > 0) scores = at::tanh(scores / o.softcap) * o.softcap;
  const at::Tensor mask = visible(tokens, positions, o.window, q.device());
  scores = scores.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity());
  const at::Tensor weights = at::softmax(scores, -1, at::kFloat).to(q.scalar_type());
  return at::matmul(weights, values).transpose(1, 2).contiguous();
}

at::Tensor by_kernel(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionOptions& options) {
  const at::Tensor out = at::empty(q.sizes(), q.options());
  AttentionParams p;
  p.q = q.const_data_ptr();
  p.k = k.const_data_ptr();
  p.v = v.const_data_ptr();
  p.out = out.mutable_data_ptr();
  p.batch = q.size(0);
  p.tokens = q.size(1);
  p.heads = q.size(2);
  p.head_dim = q.size(3);
  p.kv_heads = k.size(1);
  p.positions = k.size(2);
  p.q_batch = q.stride(0);
  p.q_token = q.stride(1);
  p.q_head = q.stride(2);
  p.k_batch = k.stride(0);
  p.k_head = k.stride(1);
  p.k_position = k.stride(2);
  p.v_batch = v.stride(0);
  p.v_head = v.stride(1);
  p.v_position = v.stride(2);
  p.window = options.window;
  p.scale = options.scale > 0 ? static_cast<float>(options.scale) : default_scale(p.head_dim);
  p.bf16 = q.scalar_type() == at::kBFloat16;
  at::parallel_for(0, attention_tasks(p), 1,
                   [&](std::int64_t first, std::int64_t last) { attention_cpu(p, first, last); });
  return out;
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionOptions& options) {
  ESPALIER_ASSERT(q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes());
  const std::int64_t batch = q.size(0), tokens = q.size(1), heads = q.size(2), head_dim = q.size(3);
  const std::int64_t kv_heads = k.size(1), positions = k.size(2);
  ESPALIER_ASSERT(k.size(0) == batch && k.size(3) == head_dim && heads % kv_heads == 0 &&
                  positions >= tokens);
  if (options.softcap > 0) return composed(q, k, v, options);
  const std::int64_t window = options.window;
  const auto scale = options.scale > 0 ? std::optional<double>(options.scale) : std::nullopt;
  if (tokens == 1) {
    // A decoding step: the query heads of a group are rows over the same keys, so nothing is
    // repeated.
    const std::int64_t first = window > 0 ? std::max<std::int64_t>(0, positions - window) : 0;
    const at::Tensor grouped = q.reshape({batch, kv_heads, heads / kv_heads, head_dim});
    const at::Tensor out = at::scaled_dot_product_attention(
        grouped, k.narrow(2, first, positions - first), v.narrow(2, first, positions - first),
        std::nullopt, 0.0, /*is_causal=*/false, scale);
    return out.reshape({batch, 1, heads, head_dim});
  }
  if (!needs_grad(q, k, v) && has_kernel(q, k, v)) return by_kernel(q, k, v, options);
  const bool windowed = window > 0 && window < positions;
  const bool plain = positions == tokens && !windowed;
  if (plain && q.device().is_cuda() && q.scalar_type() == at::kBFloat16) {
    // The flash kernels read each key head once for its whole group.
    return at::scaled_dot_product_attention(q.transpose(1, 2), k, v, std::nullopt, 0.0,
                                            /*is_causal=*/true, scale, heads != kv_heads)
        .transpose(1, 2)
        .contiguous();
  }
  const at::Tensor keys = repeat_heads(k, heads / kv_heads),
                   values = repeat_heads(v, heads / kv_heads);
  std::optional<at::Tensor> mask;
  if (!plain) mask = visible(tokens, positions, window, q.device());
  const at::Tensor out =
      at::scaled_dot_product_attention(q.transpose(1, 2), keys, values, mask, 0.0, plain, scale);
  return out.transpose(1, 2).contiguous();
}

at::Tensor causal_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const AttentionOptions& options) {
  AttentionOptions exact = options;
  if (exact.scale == 0) exact.scale = 1 / std::sqrt(static_cast<double>(q.size(3)));
  const std::int64_t groups = q.size(2) / k.size(1);
  const at::Tensor keys = k.to(at::kDouble).repeat_interleave(groups, 1),
                   values = v.to(at::kDouble).repeat_interleave(groups, 1);
  at::Tensor scores =
      at::matmul(q.to(at::kDouble).transpose(1, 2), keys.transpose(2, 3)) * exact.scale;
  if (exact.softcap > 0) scores = at::tanh(scores / exact.softcap) * exact.softcap;
  const at::Tensor mask = visible(q.size(1), k.size(2), exact.window, q.device());
  scores = scores.masked_fill(mask.logical_not(), -std::numeric_limits<double>::infinity());
  return at::matmul(at::softmax(scores, -1), values)
      .transpose(1, 2)
      .contiguous()
      .to(q.scalar_type());
}

}  // namespace espalier
