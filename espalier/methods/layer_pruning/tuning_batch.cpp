// See tuning_batch.h.
#include "espalier/methods/layer_pruning/tuning_batch.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

#include "espalier/base/error.h"

namespace espalier::layer_pruning {
namespace {

/// Widths of padded batches are multiples of this: few shapes, little waste.
constexpr std::int64_t kWidthStep = 64;

}  // namespace

std::int64_t TuningBatch::tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
}

BatchForm batch_form(at::Device device) {
  return device.is_cpu() ? BatchForm::kPacked : BatchForm::kPadded;
}

TuningBatch make_tuning_batch(const TrainingRows& rows, std::span<const std::int64_t> indices,
                              BatchForm form) {
  ESPALIER_ASSERT(!indices.empty());
  std::int64_t longest = 0, shortest = rows.length(indices.front());
  for (const std::int64_t index : indices) {
    longest = std::max(longest, rows.length(index));
    shortest = std::min(shortest, rows.length(index));
  }
  TuningBatch batch;
  if (longest == shortest || form == BatchForm::kPadded) {
    const std::int64_t multiple = longest == shortest ? 1 : kWidthStep;
    PaddedBatch padded = pad_rows(rows, indices, /*pad=*/0, PadSide::kRight, multiple);
    batch.ids = std::move(padded.ids);
    batch.targets = padded.targets.reshape({-1});
    batch.lengths = std::move(padded.lengths);
    batch.predicted = padded.predicted;
    return batch;
  }
  PackedBatch packed = pack_rows(rows, indices);
  batch.ids = std::move(packed.ids);
  batch.targets = std::move(packed.targets);
  batch.lengths = std::move(packed.lengths);
  batch.predicted = packed.predicted;
  batch.packed = true;
  return batch;
}

AttentionContext batch_context(const Decoder& model, const TuningBatch& batch) {
  return batch.packed ? model.packed_context(batch.lengths) : model.context(batch.width());
}

at::Tensor place_rows(const TuningBatch& batch, const at::Tensor& states) {
  const std::int64_t width = states.size(-1);
  if (batch.dense()) return states.view({batch.ids.size(0), batch.width(), width});
  at::Tensor placed = at::zeros({batch.ids.size(0), batch.width(), width}, states.options());
  std::int64_t first = 0;
  for (std::size_t i = 0; i < batch.lengths.size(); ++i) {
    placed[static_cast<std::int64_t>(i)]
        .narrow(0, 0, batch.lengths[i])
        .copy_(states.narrow(0, first, batch.lengths[i]));
    first += batch.lengths[i];
  }
  return placed;
}

at::Tensor take_rows(const TuningBatch& batch, const at::Tensor& states) {
  if (batch.dense()) return states.reshape({-1, states.size(-1)});
  std::vector<at::Tensor> rows;
  for (std::size_t i = 0; i < batch.lengths.size(); ++i)
    rows.push_back(states[static_cast<std::int64_t>(i)].narrow(0, 0, batch.lengths[i]));
  return at::cat(rows);
}

}  // namespace espalier::layer_pruning
