// Bookkeeping of training rows and the two shapes of their batches.
#include "espalier/data/training_rows.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/random.h"

namespace espalier {
namespace {

std::string_view bytes_of(const std::vector<TokenId>& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(TokenId)};
}

/// Writes the row's ids to `ids` and, shifted by one, its labels to `targets`; returns how many
/// positions are predicted.
std::int64_t write_row(const TrainingRow& row, std::int64_t* ids, std::int64_t* targets) {
  std::copy(row.ids.begin(), row.ids.end(), ids);
  std::copy(row.labels.begin() + 1, row.labels.end(), targets);
  targets[row.ids.size() - 1] = kIgnoredLabel;
  return predicted_tokens(row);
}

void check_indices(const TrainingRows& rows, std::span<const std::int64_t> indices) {
  ESPALIER_ASSERT(!indices.empty());
  for (const std::int64_t i : indices) ESPALIER_ASSERT(i >= 0 && i < rows.size());
}

}  // namespace

std::int64_t predicted_tokens(const TrainingRow& row) {
  if (row.labels.empty()) return 0;
  return std::count_if(row.labels.begin() + 1, row.labels.end(),
                       [](TokenId label) { return label != kIgnoredLabel; });
}

void TrainingRows::add(TrainingRow row) {
  ESPALIER_ASSERT(row.ids.size() == row.labels.size());
  for (std::size_t i = 0; i < row.ids.size(); ++i)
    ESPALIER_ASSERT(row.labels[i] == kIgnoredLabel || row.labels[i] == row.ids[i]);
  const std::int64_t predicted = predicted_tokens(row);
  ESPALIER_ASSERT(predicted > 0);
  const auto length = static_cast<std::int64_t>(row.ids.size());
  tokens_ += length;
  predicted_ += predicted;
  longest_ = std::max(longest_, length);
  rows_.push_back(std::move(row));
}

std::vector<std::int64_t> TrainingRows::lengths() const {
  std::vector<std::int64_t> lengths;
  lengths.reserve(rows_.size());
  for (const TrainingRow& row : rows_) lengths.push_back(static_cast<std::int64_t>(row.ids.size()));
  return lengths;
}

std::string TrainingRows::digest() const {
  // A digest of the rows' digests: borders count, and no second copy of all rows is made.
  std::string digests;
  digests.reserve(rows_.size() * 64);
  std::string row_bytes;
  for (const TrainingRow& row : rows_) {
    row_bytes.assign(bytes_of(row.ids));
    row_bytes += bytes_of(row.labels);
    digests += sha256_hex(row_bytes);
  }
  return sha256_hex(digests);
}

TrainingRows rows_of_text(const TokenText& text, std::int64_t seq_len, std::int64_t max_segments,
                          std::int64_t required) {
  const at::Tensor segments = cut_segments(text, seq_len, max_segments, required);
  const std::int64_t* id = segments.const_data_ptr<std::int64_t>();
  TrainingRows rows;
  for (std::int64_t i = 0; i < segments.size(0); ++i, id += seq_len) {
    TrainingRow row;
    row.ids.assign(id, id + seq_len);
    row.labels = row.ids;
    rows.add(std::move(row));
  }
  rows.counts.read = segments.size(0);
  return rows;
}

std::pair<TrainingRows, TrainingRows> split_held_out(TrainingRows rows, std::int64_t held_out,
                                                     std::uint64_t seed) {
  if (held_out < 0 || (held_out > 0 && held_out >= rows.size())) {
    throw Error(ErrorKind::kUsage, "--holdout",
                format("is {}, but there are {} rows and at least one must be left to train on",
                       held_out, rows.size()))
        .hint(format("--holdout {}", rows.size() / 10));
  }
  std::pair<TrainingRows, TrainingRows> parts;
  parts.first.counts = rows.counts;
  if (held_out == 0) {
    parts.first = std::move(rows);
    return parts;
  }
  RandomStream stream(seed, "held-out rows");
  const std::vector<std::int64_t> order = random_permutation(rows.size(), stream);
  std::vector<char> is_held_out(order.size(), 0);
  for (std::int64_t i = 0; i < held_out; ++i)
    is_held_out[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = 1;
  for (std::int64_t i = 0; i < rows.size(); ++i)
    (is_held_out[static_cast<std::size_t>(i)] ? parts.second : parts.first).add(rows.row(i));
  return parts;
}

PackedBatch pack_rows(const TrainingRows& rows, std::span<const std::int64_t> indices) {
  check_indices(rows, indices);
  PackedBatch batch;
  std::int64_t total = 0;
  for (const std::int64_t i : indices) {
    batch.lengths.push_back(rows.length(i));
    total += batch.lengths.back();
  }
  batch.ids = at::empty({1, total}, at::kLong);
  batch.targets = at::empty({total}, at::kLong);
  auto* ids = batch.ids.mutable_data_ptr<std::int64_t>();
  auto* targets = batch.targets.mutable_data_ptr<std::int64_t>();
  for (const std::int64_t i : indices) {
    batch.predicted += write_row(rows.row(i), ids, targets);
    ids += rows.length(i);
    targets += rows.length(i);
  }
  return batch;
}

PaddedBatch pad_rows(const TrainingRows& rows, std::span<const std::int64_t> indices, TokenId pad,
                     PadSide side, std::int64_t multiple, std::int64_t min_width) {
  check_indices(rows, indices);
  ESPALIER_ASSERT(multiple > 0);
  PaddedBatch batch;
  std::int64_t width = std::max<std::int64_t>(min_width, 1);
  for (const std::int64_t i : indices) {
    batch.lengths.push_back(rows.length(i));
    width = std::max(width, rows.length(i));
  }
  width = (width + multiple - 1) / multiple * multiple;
  const auto count = static_cast<std::int64_t>(indices.size());
  batch.ids = at::full({count, width}, pad, at::kLong);
  batch.targets = at::full({count, width}, kIgnoredLabel, at::kLong);
  batch.mask = at::zeros({count, width}, at::kBool);
  for (std::int64_t r = 0; r < count; ++r) {
    const std::int64_t i = indices[static_cast<std::size_t>(r)];
    const std::int64_t length = rows.length(i);
    const std::int64_t first = r * width + (side == PadSide::kLeft ? width - length : 0);
    batch.predicted += write_row(rows.row(i), batch.ids.mutable_data_ptr<std::int64_t>() + first,
                                 batch.targets.mutable_data_ptr<std::int64_t>() + first);
    std::fill_n(batch.mask.mutable_data_ptr<bool>() + first, length, true);
  }
  return batch;
}

}  // namespace espalier
