// Centred kernel alignment: Grams of column-centred features, centred once, upper triangles
// stacked, one GEMM.
//
// Columns are centred before the Gram is formed: both estimators are invariant to it, and it
// removes the cancellation that a large common offset would otherwise cause.
#include <cmath>
#include <limits>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/similarity/similarity.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr double kRounding =
    1e-24;  // relative energy that float64 centring of a Gram leaves behind

/// Share of a layer's energy below which its variation over samples is rounding noise of its own
/// type.
double noise_energy(at::ScalarType type) {
  const double relative = type == at::kDouble ? 8 * std::numeric_limits<double>::epsilon()
                          : type == at::kFloat
                              ? 8 * static_cast<double>(std::numeric_limits<float>::epsilon())
                          : type == at::kHalf ? 0x1p-10
                                              : 0x1p-7;
  return relative * relative;
}

std::int64_t minimum_samples(CkaEstimator estimator) {
  return estimator == CkaEstimator::kUnbiased ? 4 : 2;
}

void check_features(const at::Tensor& x, std::int64_t layer, CkaEstimator estimator) {
  const std::string name = format("features of layer {}", layer);
  if (x.dim() != 2 || x.size(1) == 0) {
    throw Error(ErrorKind::kInput, name,
                format("shape is {}, expected [samples, width]", shape_text(x.sizes())));
  }
  if (x.size(0) < minimum_samples(estimator)) {
    throw Error(ErrorKind::kInput, name,
                format("{} samples, but the {} estimator of CKA needs at least {}", x.size(0),
                       estimator == CkaEstimator::kUnbiased ? "unbiased" : "biased",
                       minimum_samples(estimator)))
        .hint("give more calibration samples");
  }
}

/// Gram of the column-centred features, [m, m] float64; all zeros when every column is constant.
/// Wide features are converted in chunks of columns, so the extra memory stays at `chunk_values`
/// numbers.
at::Tensor centred_gram(const at::Tensor& x, std::int64_t layer, std::int64_t chunk_values) {
  const std::int64_t m = x.size(0), width = x.size(1);
  const std::int64_t chunk = std::max<std::int64_t>(1, chunk_values / m);
  at::Tensor gram = at::zeros({m, m}, x.options().dtype(at::kDouble));
  double total = 0;
  for (std::int64_t begin = 0; begin < width; begin += chunk) {
    const at::Tensor part = x.narrow(1, begin, std::min(chunk, width - begin)).to(at::kDouble);
    total += part.square().sum().item<double>();
    const at::Tensor centred = part - part.mean(0, true);
    gram.addmm_(centred, centred.t());
  }
  if (!std::isfinite(total)) {
    throw Error(ErrorKind::kInput, format("features of layer {}", layer),
                "hold NaN or Inf, no similarity exists");
  }
  if (gram.diagonal().sum().item<double>() <= noise_energy(x.scalar_type()) * total) gram.zero_();
  return gram;
}

/// Upper triangle of the centred Gram with off-diagonal entries scaled by sqrt 2, so that the dot
/// product of two such rows is the Frobenius product of the whole matrices in half the memory.
at::Tensor upper_triangle(const at::Tensor& gram, CkaEstimator estimator) {
  const std::int64_t m = gram.size(0);
  const bool unbiased = estimator == CkaEstimator::kUnbiased;
  at::Tensor u = gram;
  if (unbiased) {
    // U-centring (Szekely-Rizzo): U_ij = K_ij - (r_i + r_j)/(m-2) + s/((m-1)(m-2)) over the hollow
    // Gram, zero diagonal.
    u = gram.clone();
    u.fill_diagonal_(0);
    const at::Tensor r = u.sum(1);
    const double s = r.sum().item<double>();
    const auto n = static_cast<double>(m);
    u = u - (r.unsqueeze(1) + r.unsqueeze(0)) / (n - 2) + s / ((n - 1) * (n - 2));
    u.fill_diagonal_(0);
    const double scale = gram.square().sum().item<double>();
    if (u.square().sum().item<double>() <= kRounding * scale) u.zero_();
  }
  const at::Tensor at_pairs = at::triu_indices(
      m, m, unbiased ? 1 : 0, at::TensorOptions().dtype(at::kLong).device(u.device()));
  at::Tensor row = u.index({at_pairs[0], at_pairs[1]});
  const at::Tensor off_diagonal = at_pairs[0].ne(at_pairs[1]);
  row.mul_(off_diagonal.to(at::kDouble).mul_(std::sqrt(2.0) - 1).add_(1));
  return row;
}

at::Tensor ratio_of(const at::Tensor& hsic) {
  const at::Tensor self = hsic.diagonal();
  const at::Tensor alive = self.gt(0);
  const at::Tensor norm = self.clamp_min(0).sqrt();
  const at::Tensor ratio = hsic / (norm.unsqueeze(1) * norm.unsqueeze(0));
  const at::Tensor both = alive.unsqueeze(1).logical_and(alive.unsqueeze(0));
  return at::where(both, ratio, at::full_like(ratio, std::nan("")));
}

}  // namespace

HsicMatrix::HsicMatrix(std::int64_t layers, CkaEstimator estimator, std::int64_t chunk_values)
    : layers_(layers), chunk_values_(chunk_values), estimator_(estimator) {
  ESPALIER_ASSERT(layers > 0 && chunk_values > 0);
  sum_ = at::zeros({layers, layers}, at::kDouble);
  ratio_sum_ = at::zeros({layers, layers}, at::kDouble);
  ratio_count_ = at::zeros({layers, layers}, at::kDouble);
}

at::Tensor HsicMatrix::centred_row(const at::Tensor& features, std::int64_t layer,
                                   CkaEstimator estimator, std::int64_t chunk_values) {
  check_features(features, layer, estimator);
  return upper_triangle(centred_gram(features, layer, chunk_values), estimator);
}

void HsicMatrix::add_batch(const std::vector<at::Tensor>& features) {
  ESPALIER_ASSERT(static_cast<std::int64_t>(features.size()) == layers_);
  at::Tensor rows;
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    const at::Tensor& x = features[static_cast<std::size_t>(layer)];
    const at::Tensor row = centred_row(x, layer, estimator_, chunk_values_);
    if (x.size(0) != features.front().size(0)) {
      throw Error(ErrorKind::kInput, format("features of layer {}", layer),
                  format("{} samples, but layer 0 has {}", x.size(0), features.front().size(0)));
    }
    if (!rows.defined()) rows = at::empty({layers_, row.size(0)}, row.options());
    rows[layer].copy_(row);
  }
  add_rows(rows, features.front().size(0));
}

void HsicMatrix::add_rows(const at::Tensor& rows, std::int64_t samples) {
  const bool unbiased = estimator_ == CkaEstimator::kUnbiased;
  ESPALIER_ASSERT(rows.dim() == 2 && rows.size(0) == layers_ &&
                  samples >= minimum_samples(estimator_));
  ESPALIER_ASSERT(rows.size(1) == samples * (unbiased ? samples - 1 : samples + 1) / 2);
  const auto n = static_cast<double>(samples);
  const at::Tensor hsic =
      at::mm(rows, rows.t()).div_(unbiased ? n * (n - 3) : (n - 1) * (n - 1)).cpu();
  sum_.add_(hsic);
  last_ = ratio_of(hsic);
  ratio_sum_.add_(at::nan_to_num(last_, 0.0));
  ratio_count_.add_(last_.isnan().logical_not().to(at::kDouble));
  ++batches_;
}

at::Tensor HsicMatrix::cka() const {
  ESPALIER_ASSERT(batches_ > 0);
  return ratio_of(sum_);
}

at::Tensor HsicMatrix::cka_mean_of_ratios() const {
  ESPALIER_ASSERT(batches_ > 0);
  return ratio_sum_ / ratio_count_;  // 0 / 0 = NaN where a pair was degenerate in every batch
}

std::vector<std::int64_t> HsicMatrix::degenerate_layers() const {
  std::vector<std::int64_t> layers;
  const at::Tensor self = sum_.diagonal().contiguous();
  const auto* values = self.const_data_ptr<double>();
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    if (!(values[layer] > 0)) layers.push_back(layer);
  }
  return layers;
}

double linear_cka(const at::Tensor& x, const at::Tensor& y, CkaEstimator estimator) {
  HsicMatrix pair(2, estimator);
  pair.add_batch({x, y});
  return pair.cka()[0][1].item<double>();
}

}  // namespace espalier
