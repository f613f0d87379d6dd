// Causal attention with grouped key/value heads, optional sliding window, over a batch of rows of
// equal length.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace espalier {

struct AttentionOptions {
  // A plain window is the usual case: causal_attention(q, k, v, 128).
  AttentionOptions(std::int64_t window_size = 0) : window(window_size) {}  // NOLINT
  std::int64_t window = 0;  // query p sees keys j with p - window < j <= p; 0: no lower bound
  double scale = 0;         // of q k^T; 0: 1 / sqrt(head_dim)
  double softcap = 0;       // scaled scores s become softcap * tanh(s / softcap); 0: none
};

/// softmax(scale q k^T + mask) v for queries that are the last `q.size(1)` positions of
/// the keys.
///
/// `q` [batch, tokens, heads, head_dim]; `k`, `v` [batch, kv_heads, positions, head_dim], positions
/// >= tokens, heads a multiple of kv_heads; any strides with contiguous head_dim. p is the absolute
/// position positions - tokens + i of query i. -> [batch, tokens, heads, head_dim], contiguous.
/// Differentiable (then through ATen's kernels). Batch rows are independent bit for bit; on AVX-512
/// processors, where our own kernel computes rows of more than one token, so are positions: a
/// chunked prefill has the bits of a whole one. With a softcap the scores are whole in memory
/// ([batch, heads, tokens, positions]). Throws Error(kInternal) when shapes do not fit together.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionOptions& options = {});

/// The definition with a whole score matrix, in float64; result in q's dtype.
at::Tensor causal_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const AttentionOptions& options = {});

}  // namespace espalier
