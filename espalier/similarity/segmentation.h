// Fisher's optimal segmentation: an ordered sequence cut into contiguous segments whose members
// are as alike as they can be. Deliberately knows no layers: layer_choice.h does.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

namespace espalier {

/// How split points are found once the number of segments is known.
enum class SplitSearch : std::uint8_t {
  kOptimal,  // back-pointers of the recursion: the best segmentation, ties to the smallest split
  /// As SGLP's published code: from the last segment down, the largest n whose V(n, k) is below the
  /// cost so far. Not optimal, and it may find fewer segments than were asked for.
  kScan,
};

struct SegmentationOptions {
  std::int64_t k_max = 6;   // most segments, 1 to M
  double tolerance = 0.05;  // another segment must lower the cost by more than this share of it
  SplitSearch search = SplitSearch::kOptimal;
};

struct Segmentation {
  std::int64_t k = 1;                   // segments that the rule asks for
  std::vector<std::int64_t> starts{0};  // first member of each; k of them unless kScan found fewer
  double cost = 0;                      // sum of squared distances to the means of these segments
  std::vector<double> costs;            // V(M, 1..k_max): the least cost of 1, 2, ... segments

  /// Segment of each of `count` members.
  std::vector<std::int64_t> segment_of(std::int64_t count) const;
  /// Number of members of each segment.
  std::vector<std::int64_t> sizes(std::int64_t count) const;
};

/// Segments `values` by V(i, 1) = D(0, i), V(i, k) = min over j of V(j, k-1) + D(j, i), where
/// D(a, b) is the sum of squared distances of members a..b-1 to their mean.
///
/// The number of segments: for k = 1, 2, ... below k_max, stop when V(M, k) is 0; take k+1 when it
/// lowers the cost by more than `tolerance` of V(M, k). The last k that does wins, so a late large
/// drop counts. Sums run over values minus their mean, in extended precision; costs and differences
/// below what rounding leaves (4 eps sqrt(M) of the whole scatter) count as 0 and as ties.
/// Throws Error(kUsage) for k_max outside 1..M, Error(kInput) for no values and for NaN or Inf.
/// Time O(k_max M^2), memory O(k_max M). Source: Fisher 1958; SGLP, arXiv 2410.14720 (spec 2.7).
Segmentation fisher_segmentation(std::span<const double> values,
                                 const SegmentationOptions& options);

/// The same for rows of numbers, `rows` [M, p]: D is the sum of squared Euclidean distances to the
/// mean row. Time O(k_max M^2 + p M^2).
Segmentation fisher_segmentation_of_rows(const at::Tensor& rows,
                                         const SegmentationOptions& options);

}  // namespace espalier
