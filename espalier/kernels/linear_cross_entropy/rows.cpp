// See rows_internal.h: loops on the CPU, ATen compositions elsewhere.
#include <limits>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/kernels/linear_cross_entropy/rows_internal.h"

namespace espalier {
namespace {

constexpr std::int64_t kIgnored = -100;

std::int64_t grain(std::int64_t count) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(count, 1));
}

/// Columns of `targets` relative to a chunk, and which rows have theirs inside it.
struct Inside {
  at::Tensor column, mask;
};
Inside inside_chunk(const at::Tensor& targets, std::int64_t first, std::int64_t count) {
  const at::Tensor column = targets - first;
  return {column.clamp(0, count - 1), column.ge(0).logical_and(column.lt(count))};
}

}  // namespace

RowSoftmax::RowSoftmax(const at::Tensor& targets, at::Device device)
    : targets_(targets.to(device).contiguous()) {
  const auto options = at::TensorOptions().device(device);
  max_ = at::full({targets.size(0)}, -std::numeric_limits<double>::infinity(),
                  options.dtype(at::kFloat));
  sum_ = at::zeros({targets.size(0)}, options.dtype(at::kDouble));
  picked_ = at::zeros({targets.size(0)}, options.dtype(at::kFloat));
}

void RowSoftmax::add(const at::Tensor& logits, std::int64_t first) {
  const at::Tensor wide = logits.to(at::kFloat).contiguous();
  const std::int64_t rows = wide.size(0), count = wide.size(1);
  ESPALIER_ASSERT(rows == targets_.size(0));
  if (!wide.device().is_cpu()) {
    const at::Tensor top = at::maximum(max_, std::get<0>(wide.max(1)));
    const at::Tensor part = at::exp(wide - top.unsqueeze(1)).sum({1}, false, at::kDouble);
    sum_ = sum_ * at::exp((max_ - top).to(at::kDouble)) + part;
    max_ = top;
    const Inside in = inside_chunk(targets_, first, count);
    picked_ = at::where(in.mask, wide.gather(1, in.column.unsqueeze(1)).squeeze(1), picked_);
    return;
  }
  const float* data = wide.const_data_ptr<float>();
  const std::int64_t* target = targets_.const_data_ptr<std::int64_t>();
  float* max = max_.data_ptr<float>();
  float* picked = picked_.data_ptr<float>();
  double* sum = sum_.data_ptr<double>();
  at::parallel_for(0, rows, grain(count), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      lse_row_f32(data + row * count, count, max + row, sum + row);
      const std::int64_t column = target[row] - first;
      if (column >= 0 && column < count) picked[row] = data[row * count + column];
    }
  });
}

at::Tensor RowSoftmax::log_sum_exp() const {
  return (at::log(sum_) + max_.to(at::kDouble)).to(at::kFloat);
}

at::Tensor RowSoftmax::nll() const {
  return (at::log(sum_) + (max_.to(at::kDouble) - picked_.to(at::kDouble))).to(at::kFloat);
}

at::Tensor RowSoftmax::target_is_best() const { return picked_.ge(max_); }

void softmax_gradient_(const at::Tensor& logits, const at::Tensor& log_sum_exp,
                       const at::Tensor& targets, std::int64_t first, double scale) {
  const std::int64_t rows = logits.size(0), count = logits.size(1);
  if (!logits.device().is_cpu()) {
    logits.sub_(log_sum_exp.unsqueeze(1)).exp_().mul_(scale);
    const Inside in = inside_chunk(targets, first, count);
    logits.scatter_add_(1, in.column.unsqueeze(1), (in.mask.to(at::kFloat) * -scale).unsqueeze(1));
    return;
  }
  ESPALIER_ASSERT(logits.is_contiguous() && logits.scalar_type() == at::kFloat);
  float* data = logits.data_ptr<float>();
  const float* lse = log_sum_exp.const_data_ptr<float>();
  const std::int64_t* target = targets.const_data_ptr<std::int64_t>();
  const auto factor = static_cast<float>(scale);
  at::parallel_for(0, rows, grain(count), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      softmax_gradient_row_f32(data + row * count, count, lse[row], factor);
      const std::int64_t column = target[row] - first;
      if (column >= 0 && column < count) data[row * count + column] -= factor;
    }
  });
}

at::Tensor unmasked_rows(const at::Tensor& targets, std::int64_t vocab) {
  const at::Tensor keep = targets.ne(kIgnored);
  const at::Tensor bad = keep.logical_and(targets.lt(0).logical_or(targets.ge(vocab)));
  if (bad.any().item<bool>()) {
    const auto id = targets.masked_select(bad)[0].item<std::int64_t>();
    throw Error(ErrorKind::kInput, "targets",
                format("token id {} is outside the vocabulary of {}", id, vocab))
        .hint("the tokenizer and the model do not belong together");
  }
  return keep.nonzero().squeeze(1);
}

}  // namespace espalier
