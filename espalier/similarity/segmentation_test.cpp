// Fisher segmentation: values computed by hand, brute force over every segmentation, the published
// scan, ties, rounding, speed, bad input.
#include "espalier/similarity/segmentation.h"

#include <chrono>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/random.h"

namespace espalier {
namespace {

using Values = std::vector<double>;
using Starts = std::vector<std::int64_t>;

Segmentation segment(const Values& values, std::int64_t k_max, double tolerance = 0.05,
                     SplitSearch search = SplitSearch::kOptimal) {
  return fisher_segmentation(values, {k_max, tolerance, search});
}

double scatter(const Values& values, std::size_t first, std::size_t end) {
  double mean = 0, sum = 0;
  for (std::size_t i = first; i < end; ++i) mean += values[i] / static_cast<double>(end - first);
  for (std::size_t i = first; i < end; ++i) sum += (values[i] - mean) * (values[i] - mean);
  return sum;
}

/// Least cost of exactly k segments of values[first..], by trying every split.
double brute_force(const Values& values, std::size_t first, std::int64_t k) {
  if (k == 1) return scatter(values, first, values.size());
  double best = std::numeric_limits<double>::infinity();
  for (std::size_t next = first + 1; next + static_cast<std::size_t>(k) - 1 <= values.size();
       ++next) {
    best = std::min(best, scatter(values, first, next) + brute_force(values, next, k - 1));
  }
  return best;
}

double cost_of(const Values& values, const Starts& starts) {
  double cost = 0;
  for (std::size_t s = 0; s < starts.size(); ++s) {
    cost +=
        scatter(values, static_cast<std::size_t>(starts[s]),
                s + 1 < starts.size() ? static_cast<std::size_t>(starts[s + 1]) : values.size());
  }
  return cost;
}

Error refused(const Values& values, std::int64_t k_max) {
  try {
    segment(values, k_max);
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was thrown";
  return Error(ErrorKind::kInternal, "", "");
}

TEST(Fisher, HandComputedCosts) {
  const Segmentation found = segment({1, 2, 3, 10, 11, 12}, 4);
  ASSERT_EQ(found.costs.size(), 4u);
  EXPECT_NEAR(found.costs[0], 125.5, 1e-12);
  EXPECT_NEAR(found.costs[1], 4, 1e-12);
  EXPECT_NEAR(found.costs[2], 2.5, 1e-12);
  EXPECT_NEAR(found.costs[3], 1, 1e-12);
  EXPECT_EQ(found.k, 4);
  EXPECT_NEAR(found.cost, 1, 1e-12);
  // Each triple is cut 1 + 2 or 2 + 1 at the same cost; the recursion takes the smallest split.
  EXPECT_EQ(found.starts, (Starts{0, 1, 3, 4}));
  EXPECT_EQ(found.sizes(6), (Starts{1, 2, 1, 2}));
  EXPECT_EQ(found.segment_of(6), (Starts{0, 1, 1, 2, 3, 3}));
}

TEST(Fisher, ZeroCostStops) {
  const Segmentation four = segment({0, 0, 0, 1, 10, 10, 11}, 6);
  EXPECT_EQ(four.k, 4);
  EXPECT_EQ(four.starts, (Starts{0, 3, 4, 6}));
  EXPECT_EQ(four.cost, 0);
  const Segmentation two = segment({1, 1, 1, 5, 5, 5}, 6);
  EXPECT_EQ(two.k, 2);
  EXPECT_EQ(two.starts, (Starts{0, 3}));
  const Segmentation one = segment({7, 7, 7}, 3);
  EXPECT_EQ(one.k, 1);
  EXPECT_EQ(one.cost, 0);
  EXPECT_EQ(segment({3}, 1).starts, (Starts{0}));
}

TEST(Fisher, TheLastLargeDropDecides) {
  // 0 0 4 4 0 0 4 4: one cut helps little, three cuts take all of the cost away.
  const Values values{0, 0, 4, 4, 0, 0, 4, 4};
  EXPECT_NEAR(segment(values, 4, 0.5).costs[1], brute_force(values, 0, 2), 1e-12);
  EXPECT_LT(
      (segment(values, 4).costs[0] - segment(values, 4).costs[1]) / segment(values, 4).costs[0],
      0.5);
  EXPECT_EQ(segment(values, 4, 0.5).k, 4);
  EXPECT_EQ(segment(values, 1, 0.5).k, 1);
}

TEST(Fisher, NoSegmentationIsBetterByBruteForce) {
  RandomStream random(1, "fisher test");
  for (int round = 0; round < 200; ++round) {
    Values values(1 + random.below(9));
    const bool coarse = round % 2 == 0;  // few distinct values: ties and zero costs
    for (double& value : values)
      value = coarse ? static_cast<double>(random.below(3)) : 100 + random.uniform();
    const auto k_max = static_cast<std::int64_t>(values.size());
    const Segmentation found = segment(values, k_max);
    for (std::int64_t k = 1; k <= k_max; ++k) {
      EXPECT_NEAR(found.costs[static_cast<std::size_t>(k - 1)], brute_force(values, 0, k), 1e-12);
    }
    EXPECT_EQ(static_cast<std::int64_t>(found.starts.size()), found.k);
    EXPECT_NEAR(cost_of(values, found.starts), brute_force(values, 0, found.k), 1e-12);
    EXPECT_NEAR(found.cost, cost_of(values, found.starts), 1e-12);
  }
}

TEST(Fisher, LargeOffsetsDoNotDrownTheDifferences) {
  Values values{1, 2, 3, 10, 11, 12};
  for (double& value : values) value += 1e12;
  EXPECT_NEAR(segment(values, 4).costs[0], 125.5, 1e-6);
  EXPECT_EQ(segment(values, 4).starts, (Starts{0, 1, 3, 4}));
}

TEST(Fisher, ThePublishedScanIsReproduced) {
  const Segmentation scan = segment({1, 2, 3, 10, 11, 12}, 4, 0.05, SplitSearch::kScan);
  EXPECT_EQ(scan.k, 4);
  EXPECT_EQ(scan.starts, (Starts{0, 2, 4}));
  EXPECT_NEAR(scan.cost, 25.5, 1e-12);
  const Segmentation none = segment({0, 0, 0, 1}, 2, 0.05, SplitSearch::kScan);
  EXPECT_EQ(none.k, 2);
  EXPECT_EQ(none.starts, (Starts{0}));
}

TEST(Fisher, RowsOfOneNumberAreValues) {
  const Values values{1, 2, 3, 10, 11, 12};
  const Segmentation rows =
      fisher_segmentation_of_rows(at::tensor(values, at::kDouble).view({6, 1}), {4, 0.05});
  EXPECT_EQ(rows.starts, segment(values, 4).starts);
  EXPECT_EQ(rows.costs, segment(values, 4).costs);
}

TEST(Fisher, RowsAreComparedByEuclideanDistance) {
  // Equal sums, two kinds of rows: only the rows themselves tell them apart.
  const at::Tensor rows =
      at::tensor(Values{1, 0, 1, 0, 0, 1, 0, 1, 0, 1}, at::kDouble).view({5, 2});
  const Segmentation found = fisher_segmentation_of_rows(rows, {3, 0.05});
  EXPECT_NEAR(found.costs[0], 2 * (2 * 0.36 + 3 * 0.16), 1e-12);
  EXPECT_EQ(found.k, 2);
  EXPECT_EQ(found.starts, (Starts{0, 2}));
  EXPECT_EQ(found.cost, 0);
}

TEST(Fisher, TenThousandLayersTakeLessThanASecond) {
  RandomStream random(2, "fisher test");
  Values values;
  for (int i = 0; i < 10'000; ++i) values.push_back(random.uniform() + i / 1250);
  const auto start = std::chrono::steady_clock::now();
  const Segmentation found = segment(values, 8);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(found.k, 8);
  for (std::size_t s = 0; s < found.starts.size(); ++s)
    EXPECT_NEAR(static_cast<double>(found.starts[s]), 1250.0 * static_cast<double>(s), 5);
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__)
  EXPECT_LT(taken.count(), 1.0);
#endif
}

TEST(Fisher, BadInputNamesBothNumbers) {
  const Error more = refused({1, 2, 3}, 4);
  EXPECT_EQ(more.kind(), ErrorKind::kUsage);
  EXPECT_EQ(more.message(), "at most 4 segments of 3 members were asked for; 1 to 3 are possible");
  EXPECT_NE(refused({1, 2, 3}, 0).message().find("at most 0 segments of 3"), std::string::npos);
  EXPECT_EQ(refused({}, 1).kind(), ErrorKind::kInput);
  EXPECT_EQ(refused({1, std::nan(""), 3}, 2).message(), "member 1 is nan");
  EXPECT_THROW(fisher_segmentation_of_rows(at::zeros({3}), {1, 0.05}), Error);
}

}  // namespace
}  // namespace espalier
