// A tensor in training: the leaf a model computes with, and its float32 master.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

struct TrainedTensor {
  std::string name;
  at::Tensor weight;  // autograd leaf in the compute dtype, placed in the model
  at::Tensor master;  // float32, no autograd; shares `weight`'s memory when that is float32 itself
};

/// Makes `slot` (a tensor of a model, possibly a read-only view of a file) trainable: a leaf of its
/// own memory replaces it. Mixed precision: a bfloat16 slot gets a float32 master, from
/// `full_precision` when that is defined. Dense memory keeps its layout (channels-last, say), other
/// memory becomes contiguous; the master is laid out as the weight.
TrainedTensor make_trained(std::string name, at::Tensor& slot,
                           const at::Tensor& full_precision = {});

/// Copies masters into weights (after a step; nothing to do in float32).
void refresh_weights(const std::vector<TrainedTensor>& tensors);

/// Ends training: the leaves stop requiring gradients.
void freeze(const std::vector<TrainedTensor>& tensors);

std::int64_t count_elements(const std::vector<TrainedTensor>& tensors);

/// sqrt of the sum of squares over all gradients, in float64 from float32 norms per tensor.
double global_norm(const std::vector<at::Tensor>& gradients);

/// Scales gradients in place by max_norm / (norm + 1e-6) when norm exceeds max_norm; max_norm <= 0
/// turns it off. Returns the norm before. Source: torch.nn.utils.clip_grad_norm_.
double clip_by_global_norm(std::vector<at::Tensor>& gradients, double max_norm);
/// The same without a word to the host: returns the norm before as a float64 scalar on the
/// gradients' device; with a limit every gradient is multiplied, by 1 when the norm is within it.
at::Tensor clip_on_device(std::vector<at::Tensor>& gradients, double max_norm);

}  // namespace espalier
