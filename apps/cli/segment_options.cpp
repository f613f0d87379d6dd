// See segment_options.h.
#include "apps/cli/segment_options.h"

#include <charconv>

#include "espalier/base/error.h"
#include "espalier/base/format.h"

namespace espalier::cli {

SegmentRule SegmentOptions::rule() const {
  SegmentRule rule;
  rule.on = segment_on == "rows" ? SegmentOn::kRows : SegmentOn::kSum;
  rule.k_max = segments_max;
  rule.tolerance = segment_tolerance;
  rule.search = compat ? SplitSearch::kScan : SplitSearch::kOptimal;
  for (const std::string& text : segment_keep) {
    std::int64_t count = 0;
    const auto [rest, code] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (code != std::errc() || rest != text.data() + text.size()) {
      throw Error(ErrorKind::kUsage, "--segment-keep", format("`{}` is not a number", text))
          .hint("one number per segment: --segment-keep 3,4,5,2,2");
    }
    rule.budgets.push_back(count);
  }
  return rule;
}

}  // namespace espalier::cli
