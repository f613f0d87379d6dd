// Cosine-based distances between hidden states, and MSRS over a matrix of similarities.
#include <cmath>
#include <numbers>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/similarity/similarity.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr std::int64_t kChunkElements =
    1 << 21;  // rows are converted to float64 in chunks of 16 MiB a side

/// fn(cosines of a chunk of rows) for all rows of a, b [..., d], float64. Rows of zeros give cosine
/// 0.
template <class Fn>
std::int64_t for_each_cosine_chunk(const at::Tensor& a, const at::Tensor& b, Fn&& fn) {
  if (a.dim() == 0 || a.sizes() != b.sizes() || a.numel() == 0) {
    throw Error(ErrorKind::kInput, "hidden states",
                format("shapes are {} and {}, expected two equal, non-empty shapes",
                       shape_text(a.sizes()), shape_text(b.sizes())));
  }
  const std::int64_t width = a.size(-1);
  const at::Tensor x = a.reshape({-1, width}), y = b.reshape({-1, width});
  const std::int64_t rows = x.size(0), chunk = std::max<std::int64_t>(1, kChunkElements / width);
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t count = std::min(chunk, rows - begin);
    const at::Tensor u = x.narrow(0, begin, count).to(at::kDouble),
                     v = y.narrow(0, begin, count).to(at::kDouble);
    const at::Tensor norms = u.norm(2, -1).mul_(v.norm(2, -1));
    const at::Tensor dots = (u * v).sum(-1);
    fn(at::where(norms.eq(0), at::zeros_like(dots), dots / norms));
  }
  return rows;
}

}  // namespace

double block_influence(const at::Tensor& before, const at::Tensor& after) {
  double sum = 0;
  const std::int64_t rows = for_each_cosine_chunk(
      before, after, [&](const at::Tensor& cosines) { sum += cosines.sum().item<double>(); });
  return 1.0 - sum / static_cast<double>(rows);
}

double angular_distance(const at::Tensor& a, const at::Tensor& b) {
  double sum = 0;
  const std::int64_t rows = for_each_cosine_chunk(a, b, [&](const at::Tensor& cosines) {
    sum += cosines.clamp(-1.0, 1.0).arccos().sum().item<double>();
  });
  return sum / static_cast<double>(rows) / std::numbers::pi;
}

Msrs msrs(const at::Tensor& cka, double beta, double tau) {
  if (cka.dim() != 2 || cka.size(0) != cka.size(1)) {
    throw Error(
        ErrorKind::kInput, "MSRS",
        format("the similarity matrix has shape {}, expected a square", shape_text(cka.sizes())));
  }
  const std::int64_t layers = cka.size(0);
  if (layers < 2) {
    throw Error(ErrorKind::kInput, "MSRS", format("needs at least 2 layers, found {}", layers));
  }
  const at::Tensor matrix = cka.to(at::kCPU, at::kDouble).contiguous();
  const auto* s = matrix.const_data_ptr<double>();
  Msrs result;
  result.share.assign(static_cast<std::size_t>(layers), 0.0);
  for (std::int64_t i = 0; i < layers; ++i) {
    for (std::int64_t j = i + 1; j < layers; ++j) {
      const double similarity = s[i * layers + j];
      if (std::isnan(similarity)) continue;
      // The sigmoid form of 1/2 (1 + tanh): exp may overflow to Inf, which gives 0, never NaN.
      const double pair = 1.0 / (1.0 + std::exp(-2.0 * beta * (similarity - tau)));
      result.value += pair;
      result.share[static_cast<std::size_t>(i)] += pair / 2;
      result.share[static_cast<std::size_t>(j)] += pair / 2;
    }
  }
  result.normalised = result.value / (static_cast<double>(layers * (layers - 1)) / 2);
  return result;
}

}  // namespace espalier
