// See head.h.
#include "espalier/models/cnn/head.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/ones_like.h>

#include "espalier/kernels/keyed_dropout/keyed_dropout.h"

namespace espalier {

at::Tensor Dense::operator()(const at::Tensor& x) const {
  return at::linear(x, weight.to(x.scalar_type()), bias.to(x.scalar_type()));
}

at::Tensor global_average(const at::Tensor& x) { return x.mean(at::IntArrayRef{2, 3}); }

at::Tensor masked_dropout(const at::Tensor& x, double p, const CnnPass& pass,
                          std::uint64_t stream) {
  if (pass.mode == NormMode::kRunning || pass.dropout == nullptr || !pass.dropout->active) return x;
  const at::Tensor ones = at::ones_like(x.detach(), {}, at::MemoryFormat::Contiguous);
  return x * keyed_dropout(ones, p, {pass.dropout->seed, stream, pass.dropout->counter});
}

}  // namespace espalier
