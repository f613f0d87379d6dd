// How alike activations are: CKA in all its forms, per-token cosine (BI) and angular distance.
// Symbols and derivations: docs/math/cka.md. Sources: Kornblith et al. 2019 (1905.00414), Song et
// al. 2012 / Nguyen et al. 2021 for the unbiased HSIC, ShortGPT for BI, Gromov et al. 2024 for the
// angular distance.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

enum class CkaEstimator : std::uint8_t { kBiased, kUnbiased };

/// CKA of two activation sets, x [samples, p], y [samples, q], float64 accumulation. Unbiased needs
/// >= 4 samples, biased
/// >= 2; Error(kInput) otherwise or when the row counts differ. A set that is constant up to
/// rounding is degenerate: NaN. Unbiased CKA may be negative and is not clamped.
double linear_cka(const at::Tensor& x, const at::Tensor& y, CkaEstimator estimator);

/// Values of wide features that are widened to float64 at a time: 32 MiB.
inline constexpr std::int64_t kFeatureChunk = 1 << 22;

/// HSIC of all pairs of layers over many minibatches: feed each batch's features, then read
/// matrices. Each Gram [m, m] is centred once and flattened, so one GEMM gives all pairs
/// (spec 4.7). Memory besides the features: one row of m (m+1) / 2 numbers per layer and
/// `chunk_values` numbers.
class HsicMatrix {
 public:
  HsicMatrix(std::int64_t layers, CkaEstimator estimator,
             std::int64_t chunk_values = kFeatureChunk);
  /// `features[l]`: [m, p_l]; m >= 4 (unbiased) and equal over layers within a call.
  void add_batch(const std::vector<at::Tensor>& features);
  /// The same for callers that see one layer at a time: `centred_row` of each layer's features [m,
  /// p] of a batch, a vector of float64 (the upper triangle: m (m+1) / 2 numbers, biased, m (m-1) /
  /// 2, unbiased), then all rows at once. `layer` is for messages.
  static at::Tensor centred_row(const at::Tensor& features, std::int64_t layer,
                                CkaEstimator estimator, std::int64_t chunk_values = kFeatureChunk);
  void add_rows(const at::Tensor& rows, std::int64_t samples);
  /// Mean HSIC over batches, then the ratio (the minibatch estimator): [layers, layers] float64,
  /// NaN for degenerate layers.
  at::Tensor cka() const;
  /// Mean over batches of each batch's CKA (the reference's rule); batches where a pair is
  /// degenerate are skipped for it.
  at::Tensor cka_mean_of_ratios() const;
  /// CKA of the batch that was added last, for scores that are averaged over batches.
  at::Tensor last_batch_cka() const { return last_; }
  std::vector<std::int64_t> degenerate_layers() const;
  std::int64_t batches() const { return batches_; }

 private:
  std::int64_t layers_ = 0, batches_ = 0, chunk_values_ = kFeatureChunk;
  CkaEstimator estimator_;
  at::Tensor sum_;  // [layers, layers] float64, summed HSIC
  at::Tensor ratio_sum_, ratio_count_, last_;
};

/// 1 - mean over tokens of cos(before[t], after[t]); before, after [..., d]; float64 accumulation.
/// Zero rows count as cos 0.
double block_influence(const at::Tensor& before, const at::Tensor& after);

/// Mean over rows of arccos(cos)/pi; a, b [rows, d].
double angular_distance(const at::Tensor& a, const at::Tensor& b);

/// MSRS = sum_{i<j} sigmoid(2 beta (S_ij - tau)) in float64; NaN entries count 0. Error(kInput) for
/// fewer than 2 layers. Source: RedTest, arXiv 2411.10507 (spec 2.8).
struct Msrs {
  double value = 0;
  double normalised = 0;      // divided by M(M-1)/2
  std::vector<double> share;  // per layer, half the sum of its pairs
};
Msrs msrs(const at::Tensor& cka, double beta = 100, double tau = 0.8);

}  // namespace espalier
