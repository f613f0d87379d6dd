// Residual streams run through blocks and through the head a few sequences at a time: what the
// sweep and the greedy search share. Internal.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <ATen/ATen.h>

#include "espalier/base/reporter.h"
#include "espalier/kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

inline void stop_if_asked(const StopToken& stop) {
  if (stop.stop_requested()) throw Interrupted{};
}

/// Tokens that run through a block at once: bounds the activations of the feed-forward part
/// whatever the sample count.
inline std::int64_t chunk_tokens(at::Device device) { return device.is_cuda() ? 1 << 14 : 2560; }

/// fn(first, count) over sequences, in chunks of about chunk_tokens.
template <class Fn>
void for_each_chunk(std::int64_t sequences, std::int64_t tokens, at::Device device, Fn&& fn) {
  const std::int64_t chunk = std::max<std::int64_t>(1, chunk_tokens(device) / tokens);
  for (std::int64_t first = 0; first < sequences; first += chunk)
    fn(first, std::min(chunk, sequences - first));
}

/// Runs the single layer of `held` over h [sequences, tokens, d] in place.
inline void run_in_place(const Decoder& held, const at::Tensor& h, const AttentionContext& context,
                         const StopToken& stop) {
  for_each_chunk(h.size(0), h.size(1), held.device(), [&](std::int64_t first, std::int64_t count) {
    stop_if_asked(stop);
    const at::Tensor part = h.narrow(0, first, count);
    part.copy_(held.run_layer(part, 0, context));
  });
}

/// Sum of the next-token losses of hidden states h [samples, tokens, d] before the final norm.
inline double next_token_nll(const Decoder& model, const at::Tensor& h, const at::Tensor& ids,
                             const StopToken& stop) {
  const std::int64_t tokens = ids.size(1);
  double nll = 0;
  for_each_chunk(h.size(0), tokens, model.device(), [&](std::int64_t first, std::int64_t count) {
    stop_if_asked(stop);
    const at::Tensor hidden = model.final_norm(h.narrow(0, first, count).narrow(1, 0, tokens - 1));
    const at::Tensor targets = ids.narrow(0, first, count).narrow(1, 1, tokens - 1).reshape({-1});
    nll += linear_nll(hidden.reshape({-1, hidden.size(-1)}), model.head_weight(), targets,
                      std::nullopt, model.config().final_softcap)
               .sum(at::kDouble)
               .item<double>();
  });
  return nll;
}

/// Tokens that ids [samples, tokens] predict.
inline double predicted_tokens(const at::Tensor& ids) {
  return static_cast<double>(ids.size(0) * (ids.size(1) - 1));
}

}  // namespace espalier::layer_pruning
