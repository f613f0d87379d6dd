// Tokenised rows that a model is tuned on, and their batches: packed without padding, or padded.
// Where the rows come from (a text, instructions, chats) is data/sft_*.h; what is done with them is
// the trainer's.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/data/token_segments.h"
#include "espalier/text/tokenizer.h"

namespace espalier {

/// Label of a position that is not predicted, as in PyTorch and transformers.
inline constexpr TokenId kIgnoredLabel = -100;

/// One row. `labels` is as long as `ids` and holds ids[i] or kIgnoredLabel at i, as in
/// transformers: position i - 1 predicts labels[i], so labels[0] never counts.
struct TrainingRow {
  std::vector<TokenId> ids;
  std::vector<TokenId> labels;
};

/// Positions of the row that are predicted: labels other than kIgnoredLabel from position 1 on.
std::int64_t predicted_tokens(const TrainingRow& row);

/// What became of the rows of a file; every row that is not trained on is counted under one reason.
struct RowCounts {
  std::int64_t read = 0;            // rows of the file
  std::int64_t without_answer = 0;  // the file's row has an empty answer: skipped
  std::int64_t answer_cut = 0;      // the prompt alone fills the cutoff: skipped
  std::int64_t too_long = 0;        // as long as the cutoff or longer and dropped for it
  std::int64_t truncated = 0;       // kept, but its end was cut off at the cutoff
};

/// Rows in the order of the file. Copying shares nothing; a million rows of 200 tokens take 1.6 GB.
class TrainingRows {
 public:
  TrainingRows() = default;

  /// Throws Error(kInternal) when ids and labels differ in length, a label is neither kIgnoredLabel
  /// nor its id, or nothing of the row is predicted (callers skip and count such rows).
  void add(TrainingRow row);

  std::int64_t size() const { return static_cast<std::int64_t>(rows_.size()); }
  bool empty() const { return rows_.empty(); }
  const TrainingRow& row(std::int64_t i) const { return rows_[static_cast<std::size_t>(i)]; }
  std::int64_t length(std::int64_t i) const { return static_cast<std::int64_t>(row(i).ids.size()); }
  /// Tokens of every row.
  std::vector<std::int64_t> lengths() const;
  std::int64_t longest() const { return longest_; }
  /// Sums over all rows.
  std::int64_t tokens() const { return tokens_; }
  std::int64_t predicted() const { return predicted_; }

  /// SHA-256 over ids, labels and row borders, so that a resumed run can prove that it goes on with
  /// the same data. O(tokens), computed at each call.
  std::string digest() const;

  RowCounts counts;

 private:
  std::vector<TrainingRow> rows_;
  std::int64_t tokens_ = 0, predicted_ = 0, longest_ = 0;
};

/// The text's segments of seq_len ids as rows, every position a label. Errors are those of
/// cut_segments.
TrainingRows rows_of_text(const TokenText& text, std::int64_t seq_len,
                          std::int64_t max_segments = 0, std::int64_t required = 1);

/// `held_out` rows drawn with the named stream (seed, "held-out rows"), the rest for training; both
/// keep the order of the file, and counts stay with the training rows. held_out == 0 gives an empty
/// second part. Throws Error(kUsage, "--holdout") unless 0 <= held_out < rows.
std::pair<TrainingRows, TrainingRows> split_held_out(TrainingRows rows, std::int64_t held_out,
                                                     std::uint64_t seed = 42);

/// Rows one behind the other, nothing in between.
struct PackedBatch {
  at::Tensor ids;      // [1, total] int64, CPU
  at::Tensor targets;  // [total] int64: the id that position p predicts, kIgnoredLabel where the
                       // label is masked and at the last position of every row
  std::vector<std::int64_t> lengths;  // tokens of each row, in the order of `indices`
  std::int64_t predicted = 0;         // targets other than kIgnoredLabel
};

/// The rows `indices` as one packed batch. Throws Error(kInternal) on an index out of range or no
/// indices.
PackedBatch pack_rows(const TrainingRows& rows, std::span<const std::int64_t> indices);

enum class PadSide : std::uint8_t { kLeft, kRight };

/// Rows as a rectangle.
struct PaddedBatch {
  at::Tensor ids;      // [rows, width] int64, `pad` where there is no token
  at::Tensor targets;  // [rows, width] int64, shifted as in PackedBatch, kIgnoredLabel on padding
  at::Tensor mask;     // [rows, width] bool, true on tokens
  std::vector<std::int64_t> lengths;
  std::int64_t predicted = 0;
};

/// The rows `indices` padded to the longest of them, rounded up to a multiple of `multiple`; and to
/// at least `min_width`, for callers that need one shape for all batches (a captured CUDA graph).
PaddedBatch pad_rows(const TrainingRows& rows, std::span<const std::int64_t> indices, TokenId pad,
                     PadSide side, std::int64_t multiple = 8, std::int64_t min_width = 0);

}  // namespace espalier
