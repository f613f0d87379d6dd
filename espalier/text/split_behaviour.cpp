// Splitter: the five behaviours of the `tokenizers` package, streamed where the rule allows it.
#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/split_behaviour_internal.h"

namespace espalier::text {

SplitBehaviour parse_split_behaviour(std::string_view name) {
  if (name == "Removed") return SplitBehaviour::kRemoved;
  if (name == "Isolated") return SplitBehaviour::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehaviour::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehaviour::kMergedWithNext;
  if (name == "Contiguous") return SplitBehaviour::kContiguous;
  throw Error(ErrorKind::kInput, "tokenizer.json",
              format("the split behavior is \"{}\", expected Removed, Isolated, "
                     "MergedWithPrevious, MergedWithNext or Contiguous",
                     name));
}

void Splitter::emit(std::size_t begin, std::size_t end) {
  if (begin < end) sink_({piece_.text.substr(begin, end - begin), piece_.at_start && begin == 0});
}

void Splitter::match(std::size_t begin, std::size_t end) {
  if (done_ < begin) segment(done_, begin, invert_);
  segment(begin, end, !invert_);
  done_ = end;
}

void Splitter::segment(std::size_t begin, std::size_t end, bool is_match) {
  switch (behaviour_) {
    case SplitBehaviour::kRemoved:
      if (!is_match) emit(begin, end);
      return;
    case SplitBehaviour::kIsolated:
      emit(begin, end);
      return;
    case SplitBehaviour::kContiguous:
      if (open_ && open_is_match_ == is_match) {
        open_end_ = end;
        return;
      }
      break;
    case SplitBehaviour::kMergedWithPrevious:
      // The first match after something else joins it; a match directly after a match stands alone.
      if (open_ && is_match && !open_is_match_) {
        open_end_ = end;
        open_is_match_ = true;
        return;
      }
      break;
    case SplitBehaviour::kMergedWithNext:
      parts_.emplace_back(begin, end);
      part_is_match_.push_back(is_match);
      return;
  }
  if (open_) emit(open_begin_, open_end_);
  open_ = true;
  open_begin_ = begin;
  open_end_ = end;
  open_is_match_ = is_match;
}

void Splitter::finish() {
  if (done_ < piece_.text.size()) segment(done_, piece_.text.size(), invert_);
  if (open_) emit(open_begin_, open_end_);
  if (behaviour_ != SplitBehaviour::kMergedWithNext) return;
  // From the end: the first match before something else joins it.
  std::vector<std::pair<std::size_t, std::size_t>> joined;
  bool next_is_match = false;
  for (std::size_t i = parts_.size(); i-- > 0;) {
    if (part_is_match_[i] && !next_is_match && !joined.empty()) {
      joined.back().first = parts_[i].first;
    } else {
      joined.push_back(parts_[i]);
    }
    next_is_match = part_is_match_[i];
  }
  for (std::size_t i = joined.size(); i-- > 0;) emit(joined[i].first, joined[i].second);
}

}  // namespace espalier::text
