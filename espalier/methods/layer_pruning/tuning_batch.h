// Rows of a batch as a decoder takes them: a rectangle when they are equally long, else packed
// (CPU) or padded on the right (CUDA), which changes nothing for causal attention.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/data/training_rows.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

struct TuningBatch {
  at::Tensor ids;      // [batch, tokens] int64 on the CPU; [1, total] when packed
  at::Tensor targets;  // [batch * tokens] int64 on the CPU: what each position predicts, or -100
  std::vector<std::int64_t> lengths;  // tokens of each row
  std::int64_t predicted = 0;
  bool packed = false;

  std::int64_t width() const { return ids.size(1); }
  std::int64_t tokens() const;
  /// Whether [batch, tokens] holds nothing but the rows, one behind the other.
  bool dense() const { return tokens() == ids.numel(); }
};

/// Packing for unequal rows on the CPU; rectangles of a few widths on CUDA, where every shape costs
/// a captured graph.
enum class BatchForm : std::uint8_t { kPacked, kPadded };
BatchForm batch_form(at::Device device);

TuningBatch make_tuning_batch(const TrainingRows& rows, std::span<const std::int64_t> indices,
                              BatchForm form);

AttentionContext batch_context(const Decoder& model, const TuningBatch& batch);

/// States of the rows one behind the other [total, d] -> as the batch lies [batch, tokens, d];
/// zeros on padding.
at::Tensor place_rows(const TuningBatch& batch, const at::Tensor& states);
/// The inverse.
at::Tensor take_rows(const TuningBatch& batch, const at::Tensor& states);

}  // namespace espalier::layer_pruning
