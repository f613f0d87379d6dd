// What becomes of the delimiters when a pre-tokenizer cuts a piece: removed, kept apart, or joined
// to a neighbour.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "espalier/text/pre_tokenizer_internal.h"

namespace espalier::text {

enum class SplitBehaviour : std::uint8_t {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous
};

/// From "Isolated" and so on. Throws Error(kInput).
SplitBehaviour parse_split_behaviour(std::string_view name);

/// Receives the matches of one piece in order, hands its parts to the sink. Empty parts are
/// dropped.
class Splitter {
 public:
  Splitter(const Piece& piece, SplitBehaviour behaviour, bool invert, const PieceSink& sink)
      : piece_(piece), behaviour_(behaviour), invert_(invert), sink_(sink) {}
  void match(std::size_t begin, std::size_t end);
  void finish();

 private:
  void segment(std::size_t begin, std::size_t end, bool is_match);
  void emit(std::size_t begin, std::size_t end);

  const Piece& piece_;
  SplitBehaviour behaviour_;
  bool invert_;
  const PieceSink& sink_;
  std::size_t done_ = 0;
  // The part that may still grow, for the behaviours that join.
  bool open_ = false;
  std::size_t open_begin_ = 0;
  std::size_t open_end_ = 0;
  bool open_is_match_ = false;
  std::vector<std::pair<std::size_t, std::size_t>> parts_;  // kMergedWithNext works from the end
  std::vector<bool> part_is_match_;
};

}  // namespace espalier::text
