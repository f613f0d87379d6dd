// Dynamic programming over segment ends. One pass over j for each end i: D(j, i) is computed once
// from prefix sums and serves every number of segments.
#include "espalier/similarity/segmentation.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/tensor/tensor_view.h"

namespace espalier {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Diameters D(a, b) of the rows of a matrix from prefix sums of the centred rows.
class Diameters {
 public:
  Diameters(std::span<const double> rows, std::int64_t count, std::int64_t width)
      : count_(count), width_(width) {
    const auto cells = static_cast<std::size_t>(width);
    std::vector<long double> mean(cells, 0), sum(cells, 0);
    for (std::size_t i = 0; i < rows.size(); ++i) mean[i % cells] += rows[i];
    for (long double& value : mean) value /= static_cast<long double>(count);
    sums_.assign(cells, 0);
    squares_.assign(1, 0);
    long double squares = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const long double centred = rows[i] - mean[i % cells];
      sum[i % cells] += centred;
      squares += centred * centred;
      sums_.push_back(static_cast<double>(sum[i % cells]));
      if (i % cells + 1 == cells) squares_.push_back(static_cast<double>(squares));
    }
    // Prefix sums are rounded once: eps/2 of the scatter T in a sum of squares, and in S^2/n at
    // most 2 eps T sqrt(M); see the header.
    rounding_ = 4 * std::numeric_limits<double>::epsilon() * squares_.back() *
                std::sqrt(static_cast<double>(count));
  }

  std::int64_t count() const { return count_; }
  double rounding() const { return rounding_; }

  /// out[j] = D(j, end) for every j < end.
  void ending_at(std::int64_t end, std::vector<double>& out) const {
    const double* last = sums_.data() + end * width_;
    const double square = squares_[static_cast<std::size_t>(end)];
    for (std::int64_t j = 0; j < end; ++j) {
      const double* first = sums_.data() + j * width_;
      double norm = (last[0] - first[0]) * (last[0] - first[0]);
      for (std::int64_t c = 1; c < width_; ++c) norm += (last[c] - first[c]) * (last[c] - first[c]);
      const double d =
          square - squares_[static_cast<std::size_t>(j)] - norm / static_cast<double>(end - j);
      out[static_cast<std::size_t>(j)] = d > rounding_ ? d : 0;
    }
  }

 private:
  std::int64_t count_ = 0, width_ = 0;
  std::vector<double> sums_;     // [count + 1, width]
  std::vector<double> squares_;  // [count + 1]
  double rounding_ = 0;
};

/// V(i, k) and the split it comes from, for every i up to M and k up to k_max.
struct Table {
  std::int64_t width = 0;          // M + 1
  std::vector<double> cost;        // [k_max + 1, M + 1], infinite where i < k
  std::vector<std::int64_t> from;  // the same shape

  std::size_t cell(std::int64_t i, std::int64_t k) const {
    return static_cast<std::size_t>(k * width + i);
  }
  double at(std::int64_t i, std::int64_t k) const { return cost[cell(i, k)]; }
};

Table fill_table(const Diameters& diameters, std::int64_t k_max) {
  const std::int64_t count = diameters.count();
  Table table;
  table.width = count + 1;
  table.cost.assign(static_cast<std::size_t>((k_max + 1) * table.width), kInfinity);
  table.from.assign(table.cost.size(), 0);
  table.cost[0] = 0;
  const double rounding = diameters.rounding();
  std::vector<double> diameter(static_cast<std::size_t>(count));
  for (std::int64_t i = 1; i <= count; ++i) {
    diameters.ending_at(i, diameter);
    const double* d = diameter.data();
    for (std::int64_t k = 1; k <= std::min(k_max, i); ++k) {
      const double* shorter = table.cost.data() + table.cell(0, k - 1);
      double best = kInfinity, limit = kInfinity;  // the first of those equal up to rounding stays
      std::int64_t from = 0;
      for (std::int64_t j = k - 1; j < i; ++j) {
        const double candidate = shorter[j] + d[j];
        if (candidate < limit) {
          best = candidate;
          limit = best - rounding;
          from = j;
        }
      }
      table.cost[table.cell(i, k)] = best;
      table.from[table.cell(i, k)] = from;
    }
  }
  return table;
}

std::int64_t number_of_segments(const std::vector<double>& costs, double tolerance) {
  std::int64_t k = 1;
  for (std::size_t i = 0; i + 1 < costs.size(); ++i) {
    if (costs[i] == 0) return static_cast<std::int64_t>(i) + 1;
    if ((costs[i] - costs[i + 1]) / costs[i] > tolerance) k = static_cast<std::int64_t>(i) + 2;
  }
  return k;
}

/// Starts of the segments after the first, descending.
std::vector<std::int64_t> split_points(const Table& table, std::int64_t count, std::int64_t k,
                                       SplitSearch search, double rounding) {
  std::vector<std::int64_t> splits;
  std::int64_t end = count;
  if (search == SplitSearch::kOptimal) {
    for (; k > 1; --k) {
      end = table.from[table.cell(end, k)];
      splits.push_back(end);
    }
    return splits;
  }
  double cost = table.at(count, k);
  while (--k >= 1) {
    for (std::int64_t n = end - 1; n >= k; --n) {
      if (!(table.at(n, k) + rounding < cost)) continue;
      splits.push_back(n);
      end = n;
      cost = table.at(n, k);
      break;
    }
  }
  return splits;
}

/// Sum of squared distances to the mean, in two passes: what prefix sums cannot give exactly.
double scatter(std::span<const double> rows, std::int64_t width, std::int64_t first,
               std::int64_t end) {
  long double total = 0;
  for (std::int64_t c = 0; c < width; ++c) {
    long double mean = 0;
    for (std::int64_t i = first; i < end; ++i)
      mean += rows[static_cast<std::size_t>(i * width + c)];
    mean /= static_cast<long double>(end - first);
    for (std::int64_t i = first; i < end; ++i) {
      const long double off = rows[static_cast<std::size_t>(i * width + c)] - mean;
      total += off * off;
    }
  }
  return static_cast<double>(total);
}

Segmentation segment(std::span<const double> rows, std::int64_t count, std::int64_t width,
                     const SegmentationOptions& options) {
  if (count < 1 || width < 1) throw Error(ErrorKind::kInput, "segmentation", "nothing to segment");
  if (options.k_max < 1 || options.k_max > count) {
    throw Error(ErrorKind::kUsage, "segmentation",
                format("at most {} segments of {} members were asked for; 1 to {} are possible",
                       options.k_max, count, count));
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!std::isfinite(rows[i])) {
      throw Error(ErrorKind::kInput, "segmentation",
                  format("member {} is {}", static_cast<std::int64_t>(i) / width, rows[i]));
    }
  }
  const Diameters diameters(rows, count, width);
  const Table table = fill_table(diameters, options.k_max);
  Segmentation result;
  for (std::int64_t k = 1; k <= options.k_max; ++k) result.costs.push_back(table.at(count, k));
  result.k = number_of_segments(result.costs, options.tolerance);
  std::vector<std::int64_t> splits =
      split_points(table, count, result.k, options.search, diameters.rounding());
  result.starts.insert(result.starts.end(), splits.rbegin(), splits.rend());
  for (std::size_t s = 0; s < result.starts.size(); ++s) {
    const std::int64_t end = s + 1 < result.starts.size() ? result.starts[s + 1] : count;
    result.cost += scatter(rows, width, result.starts[s], end);
  }
  return result;
}

}  // namespace

std::vector<std::int64_t> Segmentation::segment_of(std::int64_t count) const {
  std::vector<std::int64_t> segments;
  std::int64_t segment = -1;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto next = static_cast<std::size_t>(segment + 1);
    if (next < starts.size() && starts[next] == i) ++segment;
    segments.push_back(segment);
  }
  return segments;
}

std::vector<std::int64_t> Segmentation::sizes(std::int64_t count) const {
  std::vector<std::int64_t> sizes;
  for (std::size_t s = 0; s < starts.size(); ++s)
    sizes.push_back((s + 1 < starts.size() ? starts[s + 1] : count) - starts[s]);
  return sizes;
}

Segmentation fisher_segmentation(std::span<const double> values,
                                 const SegmentationOptions& options) {
  return segment(values, static_cast<std::int64_t>(values.size()), 1, options);
}

Segmentation fisher_segmentation_of_rows(const at::Tensor& rows,
                                         const SegmentationOptions& options) {
  if (rows.dim() != 2) {
    throw Error(ErrorKind::kInput, "segmentation",
                format("rows have shape {}, expected [members, width]", shape_text(rows.sizes())));
  }
  const at::Tensor plain = rows.to(at::kCPU, at::kDouble).contiguous();
  return segment({plain.const_data_ptr<double>(), static_cast<std::size_t>(plain.numel())},
                 plain.size(0), plain.size(1), options);
}

}  // namespace espalier
