// Dropout whose mask is a function of a key and the element's position: it is computed where it is
// needed, forward or backward, and never stored.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace espalier {

/// Names one mask. Equal keys give equal masks on every device, thread count and instruction set.
struct DropoutKey {
  std::uint64_t seed = 0, stream = 0;
  /// int64 scalar on x's device, read when the op runs: a captured CUDA graph sees its new value at
  /// every replay.
  at::Tensor counter;
};

/// x with each element zeroed with probability `p` in [0, 1), the others divided by 1 - p; a new
/// tensor, no autograd. The same call on a gradient is its backward. float32 or bfloat16 (computed
/// in float32); the element's position is its index in the flattened x.
at::Tensor keyed_dropout(const at::Tensor& x, double p, const DropoutKey& key);

/// y += keyed_dropout(g), without the tensor in between. `y` contiguous, of g's shape and dtype.
void keyed_dropout_add_(const at::Tensor& y, const at::Tensor& g, double p, const DropoutKey& key);

/// The definition: the mask [numel] as booleans (true: kept), element by element; CPU.
at::Tensor keyed_mask_reference(std::int64_t numel, double p, const DropoutKey& key);

}  // namespace espalier
