// Copying, reordering and re-encoding the rows of one matrix.
#include <algorithm>
#include <cstring>
#include <vector>

#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/surgery/transcode_internal.h"

namespace espalier {
namespace {

constexpr std::int64_t kPieceElements = 1 << 20;

/// Stored row of each target row; empty when they agree.
std::vector<std::int64_t> row_order(std::int64_t rows, std::int64_t stored_heads,
                                    std::int64_t target_heads) {
  if (stored_heads == target_heads) return {};
  std::vector<std::int64_t> order(static_cast<std::size_t>(rows));
  if (target_heads != 0) {
    ESPALIER_ASSERT(stored_heads == 0);
    return gguf_rope_rows(target_heads, rows / target_heads);
  }
  const auto hf_row = gguf_rope_rows(stored_heads, rows / stored_heads);
  for (std::int64_t row = 0; row < rows; ++row) {
    order[static_cast<std::size_t>(hf_row[static_cast<std::size_t>(row)])] = row;
  }
  return order;
}

class Rows {
 public:
  Rows(const StoredWeight& source, std::int64_t target_heads) : source_(source) {
    // A vector is one column, so that the biases of interleaved heads are reordered like their
    // matrices.
    rows_ = source.shape.empty() ? 1 : source.shape.front();
    columns_ = 1;
    for (std::size_t i = 1; i < source.shape.size(); ++i) columns_ *= source.shape[i];
    order_ = row_order(rows_, source.permuted_heads, target_heads);
    row_bytes_ = static_cast<std::size_t>(gguf_bytes(source.type, columns_));
  }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::size_t row_bytes() const { return row_bytes_; }
  bool in_order() const { return order_.empty(); }
  std::span<const std::byte> row(std::int64_t target) const {
    const std::int64_t stored = order_.empty() ? target : order_[static_cast<std::size_t>(target)];
    return source_.data.subspan(static_cast<std::size_t>(stored) * row_bytes_, row_bytes_);
  }

 private:
  const StoredWeight& source_;
  std::int64_t rows_ = 0, columns_ = 0;
  std::size_t row_bytes_ = 0;
  std::vector<std::int64_t> order_;
};

void reencode_piece(const Rows& rows, std::int64_t first, std::int64_t count, GgufType from,
                    GgufType to, float shift, std::vector<std::byte>& out) {
  const auto to_bytes = static_cast<std::size_t>(gguf_bytes(to, rows.columns()));
  out.resize(static_cast<std::size_t>(count) * to_bytes);
  const std::int64_t grain =
      std::max<std::int64_t>(1, 65536 / std::max<std::int64_t>(1, rows.columns()));
  at::parallel_for(0, count, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> values(static_cast<std::size_t>(rows.columns()));
    for (std::int64_t row = begin; row < end; ++row) {
      const std::span<std::byte> target(out.data() + static_cast<std::size_t>(row) * to_bytes,
                                        to_bytes);
      if (from == to && shift == 0) {
        std::memcpy(target.data(), rows.row(first + row).data(), to_bytes);
        continue;
      }
      dequantize(from, rows.row(first + row), values);
      if (shift != 0)
        for (float& value : values) value += shift;
      quantize(to, values, target);
    }
  });
}

}  // namespace

void transcode(const StoredWeight& source, GgufType type, const WeightForm& target,
               const ByteSink& sink) {
  const Rows rows(source, target.heads);
  const float shift = target.offset - source.offset;
  ESPALIER_ASSERT(rows.columns() % gguf_type_info(type).block == 0);
  const std::int64_t piece =
      std::max<std::int64_t>(1, kPieceElements / std::max<std::int64_t>(1, rows.columns()));
  std::vector<std::byte> out;
  for (std::int64_t first = 0; first < rows.rows(); first += piece) {
    const std::int64_t count = std::min(piece, rows.rows() - first);
    if (source.type == type && rows.in_order() && shift == 0) {
      sink(source.data.subspan(static_cast<std::size_t>(first) * rows.row_bytes(),
                               static_cast<std::size_t>(count) * rows.row_bytes()));
    } else {
      reencode_piece(rows, first, count, source.type, type, shift, out);
      sink(out);
    }
  }
  if (source.file) source.file->release(source.data);
}

}  // namespace espalier
