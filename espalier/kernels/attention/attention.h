// Causal attention with grouped key/value heads, optional sliding window, over a batch of rows of
// equal length.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace espalier {

/// softmax(q k^T / sqrt(head_dim) + mask) v for queries that are the last `q.size(1)` positions of
/// the keys.
///
/// `q` [batch, tokens, heads, head_dim]; `k`, `v` [batch, kv_heads, positions, head_dim], positions
/// >= tokens, heads a multiple of kv_heads; any strides with contiguous head_dim. Query i (absolute
/// position p = positions - tokens + i) sees keys j with p - window < j <= p; window 0 means no
/// lower bound. -> [batch, tokens, heads, head_dim], contiguous. Differentiable (then through
/// ATen's kernels). Batch rows are independent bit for bit; on AVX-512 processors, where our own
/// kernel computes rows of more than one token, so are positions: a chunked prefill has the bits of
/// a whole one. Throws Error(kInternal) when shapes do not fit together.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::int64_t window = 0);

/// The definition with a whole score matrix, in float64; result in q's dtype.
at::Tensor causal_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      std::int64_t window = 0);

}  // namespace espalier
