// Making adapters, row norms and merging. The forward and backward are in low_rank_group.cpp.
#include "espalier/nn/low_rank.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/random.h"
#include "espalier/kernels/matmul/matmul.h"
#include "espalier/nn/linear.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr std::int64_t kTileElements = 1 << 20;

at::Device device_of(const Linear& linear) {
  return linear.nf4 ? linear.nf4->device() : linear.weight.device();
}

void check_options(const LowRankOptions& options, const std::string& name) {
  ProblemList problems(ErrorKind::kUsage, name);
  if (options.rank < 1) problems.add(format("rank is {}, it must be at least 1", options.rank));
  if (!(options.dropout >= 0 && options.dropout < 1))
    problems.add(format("dropout is {}, it must lie in [0, 1)", options.dropout));
  if (!std::isfinite(options.alpha)) problems.add(format("alpha is {}", options.alpha));
  problems.throw_if_any();
}

/// ||W + s B A||^2 per row of `weight`, float32.
at::Tensor norms_from(const at::Tensor& weight_squared, const at::Tensor& wa, const LowRank& lora) {
  const at::Tensor a = lora.a.to(at::kFloat), b = lora.b.to(at::kFloat);
  const at::Tensor gram = at::matmul(a, a.t());  // [rank, rank]
  const double s = lora.scale;
  // One product for both terms: B . (2 s W A^T + s^2 B A A^T), row by row.
  const at::Tensor inner = at::addmm(wa, b, gram, 2 * s, s * s);
  const at::Tensor squared = weight_squared + (inner * b).sum(1);
  // Rounding may leave a tiny negative number where V vanishes.
  return squared.clamp_min_(1e-30).sqrt_();
}

}  // namespace

double low_rank_scale(const LowRankOptions& options) {
  const auto rank = static_cast<double>(options.rank);
  return options.alpha / (options.rslora ? std::sqrt(rank) : rank);
}

void init_low_rank(Linear& linear, const LowRankOptions& options, std::uint64_t seed,
                   const std::string& name) {
  check_options(options, name);
  if (linear.adapter != nullptr)
    throw Error(ErrorKind::kUsage, name, "has an adapter already").hint("merge or remove it first");
  const at::NoGradGuard no_grad;
  const at::Device device = device_of(linear);
  auto adapter = std::make_shared<LowRank>();
  const double bound = 1.0 / std::sqrt(static_cast<double>(linear.in_features()));
  // Drawn on the CPU, so that a seed means the same adapter on every device.
  at::Generator generator = make_generator(seed, "lora_A." + name, 0, 0, at::kCPU);
  adapter->a = at::empty({options.rank, linear.in_features()}, at::kFloat)
                   .uniform_(-bound, bound, generator)
                   .to(device);
  adapter->b = at::zeros({linear.out_features(), options.rank},
                         at::TensorOptions().dtype(at::kFloat).device(device));
  adapter->scale = low_rank_scale(options);
  adapter->alpha = options.alpha;
  adapter->dropout = options.dropout;
  adapter->stream = stream_seed(0, "dropout." + name);
  if (options.dora) {
    adapter->weight_norm_squared = row_norms_squared(linear);
    adapter->magnitude = adapter->weight_norm_squared.sqrt();
  }
  linear.adapter = std::move(adapter);
}

at::Tensor row_norms_squared(const Linear& linear) {
  const at::NoGradGuard no_grad;
  const std::int64_t rows = linear.out_features(),
                     step = std::max<std::int64_t>(
                         1, kTileElements / std::max<std::int64_t>(1, linear.in_features()));
  const auto squared = [](const at::Tensor& part) {
    return at::linalg_vector_norm(part.detach(), 2, {1}, false, at::kFloat).square_();
  };
  if (!linear.nf4) return squared(linear.weight);
  std::vector<at::Tensor> parts;
  for (std::int64_t first = 0; first < rows; first += step) {
    parts.push_back(
        squared(nf4_dequantize_rows(*linear.nf4, first, std::min(step, rows - first), at::kFloat)));
  }
  return at::cat(parts);
}

at::Tensor adapted_row_norms(const Linear& linear) {
  const at::NoGradGuard no_grad;
  ESPALIER_ASSERT(linear.adapter != nullptr && linear.adapter->weight_norm_squared.defined());
  const LowRank& lora = *linear.adapter;
  // A as rows of an input: A W^T [rank, out].
  const at::ScalarType type = linear.nf4 ? at::kFloat : linear.weight.scalar_type();
  const at::Tensor a = lora.a.detach().to(type);
  const at::Tensor aw = linear.nf4 ? nf4_matmul_nt(a, *linear.nf4) : matmul_nt(a, linear.weight);
  return norms_from(lora.weight_norm_squared, aw.t().to(at::kFloat), lora);
}

at::Tensor merge_low_rank(const at::Tensor& weight, const LowRank& adapter) {
  const at::NoGradGuard no_grad;
  ESPALIER_ASSERT(weight.dim() == 2 && weight.size(0) == adapter.b.size(0) &&
                  weight.size(1) == adapter.a.size(1));
  at::Tensor merged = at::addmm(weight.to(at::kFloat), adapter.b.to(at::kFloat),
                                adapter.a.to(at::kFloat), 1, adapter.scale);
  if (!adapter.is_dora()) return merged;
  const at::Tensor norms = at::linalg_vector_norm(merged, 2, {1}).clamp_min_(1e-15);
  return merged.mul_((adapter.magnitude.to(at::kFloat) / norms).unsqueeze(1));
}

at::Tensor merged_weight(const Linear& linear) {
  const at::NoGradGuard no_grad;
  const at::Tensor weight =
      linear.nf4 ? nf4_dequantize(*linear.nf4, at::kFloat) : linear.weight.detach();
  return linear.adapter ? merge_low_rank(weight, *linear.adapter) : weight.to(at::kFloat);
}

}  // namespace espalier
