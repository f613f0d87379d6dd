// Hidden states that enter the first trained layer, one row of the training text each, computed
// once and kept in a file: the layers below never change, so every epoch after that costs only what
// trains (spec 4.5).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "espalier/base/reporter.h"
#include "espalier/data/training_rows.h"
#include "espalier/models/decoder/decoder.h"

namespace espalier::layer_pruning {

/// Digest of the embedding and the layers below `first`, NF4 weights included; of nothing when
/// first is 0. Reads the weights once (memory bandwidth).
std::string frozen_digest(Decoder& model, std::int64_t first);

/// Digest of all that decides the cached values: the frozen weights, the rows, dtype and kind of
/// device.
std::string prefix_key(const std::string& frozen, const TrainingRows& rows, const Decoder& model);

/// Bytes of a cache: the compute dtype is kept, so what is read back is exactly what was computed.
std::uint64_t prefix_cache_bytes(std::int64_t tokens, std::int64_t hidden, at::ScalarType type);

class HiddenStateFile {
 public:
  struct Shape {
    std::vector<std::int64_t> lengths;  // tokens of each row
    std::int64_t hidden = 0;
    at::ScalarType type = at::kFloat;
  };

  /// Opens folder/hidden.bin when it was made for `key` (complete or not), else makes it anew, its
  /// disk space reserved. Throws Error(kResource) when the space is not there.
  HiddenStateFile(const std::filesystem::path& folder, const std::string& key, const Shape& shape);
  ~HiddenStateFile();
  HiddenStateFile(HiddenStateFile&&) noexcept;
  HiddenStateFile& operator=(HiddenStateFile&&) noexcept;

  /// Whether folder holds all rows for this key: then opening costs nothing.
  static bool is_complete(const std::filesystem::path& folder, const std::string& key,
                          const Shape& shape);

  std::int64_t rows_done() const;
  /// Appends the next `rows` rows, one behind the other: states [tokens, hidden]. How far it got is
  /// on record every few seconds and at the last row, so that a killed run loses no more.
  void append(const at::Tensor& states, std::int64_t rows);
  /// Rows by index, all below rows_done, one behind the other: [tokens, hidden] on the CPU.
  at::Tensor read(const std::vector<std::int64_t>& rows) const;
  /// Hints that these rows are read next.
  void will_need(const std::vector<std::int64_t>& rows) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Rows [begin, end) entering the first trained layer, one behind the other: [tokens, hidden].
using PrefixFunction = std::function<at::Tensor(std::int64_t begin, std::int64_t end)>;

/// Computes the rows that `file` still lacks, `batch_rows` at once and in order, without autograd.
/// Interrupted after a stop request; rows done stay.
void fill_prefix_cache(const PrefixFunction& prefix, std::int64_t rows, std::int64_t batch_rows,
                       HiddenStateFile& file, Reporter& reporter, const StopToken& stop);

}  // namespace espalier::layer_pruning
