// How `--method sglp` segments layers and how many of each segment stay; for decoders and CNNs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "espalier/options/options.h"
#include "espalier/similarity/layer_choice.h"

namespace espalier::cli {

struct SegmentOptions {
  std::vector<std::string> segment_keep;
  std::optional<std::int64_t> segments_max;
  double segment_tolerance = 0.05;
  std::string segment_on = "sum";
  bool compat = false;

  template <class V>
  void visit(V&& option) {
    option.group("Segments (sglp)");
    option("segment_keep", segment_keep,
           "how many layers of each segment stay, one number per segment; default: in proportion, "
           "at least 1 each",
           placeholder("N,N,..."));
    option("segments_max", segments_max,
           "most segments the layers are cut into; default 6, or one per layer of fewer",
           placeholder("N"));
    option("segment_tolerance", segment_tolerance,
           "share of the cost that one more segment must save", in_range(0, 1));
    option("segment_on", segment_on,
           "what is segmented: the row sums of the CKA matrix, or its rows",
           one_of({"sum", "rows"}));
    option("compat", compat,
           "find split points as SGLP's published code does, which is not optimal");
  }

  /// Throws Error(kUsage) for budgets that are no numbers.
  SegmentRule rule() const;
};

}  // namespace espalier::cli
