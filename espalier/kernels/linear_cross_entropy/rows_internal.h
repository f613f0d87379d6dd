// Row-wise pieces of the softmax over a vocabulary that arrives in chunks. Internal.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

/// Rows of logits that are alive at a time.
constexpr std::int64_t kChunkRows = 512;

/// Rows of the next chunk when `left` remain: kChunkRows, or all of the rest when fewer than 8
/// would stay behind, because matmul_nt promises equal bits from 8 rows on.
inline std::int64_t chunk_rows(std::int64_t left) {
  return left < kChunkRows + 8 ? left : kChunkRows;
}

/// Logits as float32, capped when softcap > 0.
inline at::Tensor capped(const at::Tensor& logits, double softcap) {
  const at::Tensor wide = logits.to(at::kFloat);
  return softcap > 0 ? at::tanh(wide / softcap).mul_(softcap) : wide;
}

/// Running log-sum-exp of each row, and the logit of its target, over vocabulary chunks in
/// ascending order.
class RowSoftmax {
 public:
  /// `targets` [rows] int64, all within the vocabulary; `device` of the logits to come.
  RowSoftmax(const at::Tensor& targets, at::Device device);
  /// `logits` [rows, count] of columns first..first+count-1; float32 or bfloat16.
  void add(const at::Tensor& logits, std::int64_t first);
  /// [rows] float32 each.
  at::Tensor log_sum_exp() const;
  at::Tensor nll() const;
  /// [rows] bool: no logit is above the target's.
  at::Tensor target_is_best() const;

 private:
  at::Tensor targets_;
  at::Tensor max_, sum_, picked_;  // [rows]; sum in float64
};

/// `logits` [rows, count] float32 of columns first..: becomes (softmax - onehot(target)) * scale in
/// place.
void softmax_gradient_(const at::Tensor& logits, const at::Tensor& log_sum_exp,
                       const at::Tensor& targets, std::int64_t first, double scale);

/// Indices of the rows whose target is not -100. Error(kInput) for a target outside the vocabulary.
at::Tensor unmasked_rows(const at::Tensor& targets, std::int64_t vocab);

// Loops of cpu.cpp over one row.
void lse_row_f32(const float* logits, std::int64_t count, float* max, double* sum);
void softmax_gradient_row_f32(float* logits, std::int64_t count, float log_sum_exp, float scale);

}  // namespace espalier
