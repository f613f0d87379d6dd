// The CPU kernel of causal_attention on raw memory: torch-free. Internal.
#pragma once

#include <cstdint>

namespace espalier {

/// Strides in elements; the innermost dimension (head_dim) is contiguous everywhere. bf16 as 16-bit
/// patterns.
struct AttentionParams {
  const void* q = nullptr;  // [batch, tokens, heads, head_dim]
  const void* k = nullptr;  // [batch, kv_heads, positions, head_dim]
  const void* v = nullptr;
  void* out = nullptr;  // [batch, tokens, heads, head_dim], contiguous
  std::int64_t batch = 0, tokens = 0, heads = 0, kv_heads = 0, positions = 0, head_dim = 0;
  std::int64_t q_batch = 0, q_token = 0, q_head = 0;
  std::int64_t k_batch = 0, k_head = 0, k_position = 0;
  std::int64_t v_batch = 0, v_head = 0, v_position = 0;
  std::int64_t window = 0;  // 0: unlimited
  float scale = 1;          // of q k^T
  bool bf16 = false;
};

/// Query tokens of one task: with a group's heads they share one packed copy of the keys.
constexpr std::int64_t kAttentionTaskTokens = 64;

/// Whether this processor can run attention_task_cpu (AVX-512).
bool has_attention_cpu(std::int64_t head_dim);

/// Tasks 0 .. batch * kv_heads * ceil(tokens / kAttentionTaskTokens) - 1 are independent; runs
/// first..last-1.
std::int64_t attention_tasks(const AttentionParams& params);
void attention_cpu(const AttentionParams& params, std::int64_t first, std::int64_t last);

}  // namespace espalier
