// Checks and choice of backend: our CPU kernel for whole rows without a gradient, libtorch's fused
// kernels otherwise.
#include <cmath>

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

at::Tensor by_kernel(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     std::int64_t window) {
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
  p.window = window;
  p.bf16 = q.scalar_type() == at::kBFloat16;
  at::parallel_for(0, attention_tasks(p), 1,
                   [&](std::int64_t first, std::int64_t last) { attention_cpu(p, first, last); });
  return out;
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::int64_t window) {
  ESPALIER_ASSERT(q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes());
  const std::int64_t batch = q.size(0), tokens = q.size(1), heads = q.size(2), head_dim = q.size(3);
  const std::int64_t kv_heads = k.size(1), positions = k.size(2);
  ESPALIER_ASSERT(k.size(0) == batch && k.size(3) == head_dim && heads % kv_heads == 0 &&
                  positions >= tokens);
  if (tokens == 1) {
    // A decoding step: the query heads of a group are rows over the same keys, so nothing is
    // repeated.
    const std::int64_t first = window > 0 ? std::max<std::int64_t>(0, positions - window) : 0;
    const at::Tensor grouped = q.reshape({batch, kv_heads, heads / kv_heads, head_dim});
    const at::Tensor out = at::scaled_dot_product_attention(
        grouped, k.narrow(2, first, positions - first), v.narrow(2, first, positions - first));
    return out.reshape({batch, 1, heads, head_dim});
  }
  if (!needs_grad(q, k, v) && has_kernel(q, k, v)) return by_kernel(q, k, v, window);
  const at::Tensor keys = repeat_heads(k, heads / kv_heads),
                   values = repeat_heads(v, heads / kv_heads);
  const bool windowed = window > 0 && window < positions;
  const bool plain = positions == tokens && !windowed;
  std::optional<at::Tensor> mask;
  if (!plain) mask = visible(tokens, positions, window, q.device());
  const at::Tensor out =
      at::scaled_dot_product_attention(q.transpose(1, 2), keys, values, mask, 0.0, plain);
  return out.transpose(1, 2).contiguous();
}

at::Tensor causal_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      std::int64_t window) {
  const std::int64_t groups = q.size(2) / k.size(1);
  const at::Tensor keys = k.to(at::kDouble).repeat_interleave(groups, 1),
                   values = v.to(at::kDouble).repeat_interleave(groups, 1);
  at::Tensor scores = at::matmul(q.to(at::kDouble).transpose(1, 2), keys.transpose(2, 3)) /
                      std::sqrt(static_cast<double>(q.size(3)));
  scores = scores.masked_fill(visible(q.size(1), k.size(2), window, q.device()).logical_not(),
                              -std::numeric_limits<double>::infinity());
  return at::matmul(at::softmax(scores, -1), values)
      .transpose(1, 2)
      .contiguous()
      .to(q.scalar_type());
}

}  // namespace espalier
