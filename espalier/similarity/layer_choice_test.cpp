// Which layers stay: the published selections of RedTest, budgets by largest remainder, protected
// layers, every refusal.
#include "espalier/similarity/layer_choice.h"

#include <cmath>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

#include "tests/support/thrown_by.h"

namespace espalier {
namespace {

using testing_support::thrown_by;

using Layers = std::vector<std::int64_t>;
using Values = std::vector<double>;

/// Blocks of three equal stages from kept features, feature 0 being the stem.
std::vector<Layers> blocks_by_stage(const Layers& kept, std::int64_t blocks) {
  EXPECT_EQ(kept.front(), 0);
  std::vector<Layers> stages(3);
  for (const std::int64_t feature : kept) {
    if (feature > 0)
      stages[static_cast<std::size_t>((feature - 1) / blocks)].push_back((feature - 1) % blocks);
  }
  return stages;
}

TEST(AdjacentRule, PublishedBlocksOfResnet56OnCifar10) {
  const Values a{.8040034,  .9623917, .9816055,  .9818996,  .9646843, .9950012,  .96210957,
                 .95488405, .9958612, .9714489,  .99030924, .9881511, .99465436, .99431086,
                 .9923767,  .9919683, .9893893,  .9911849,  .9701058, .9823101,  .9843625,
                 .98163974, .966809,  .93328685, .9032259,  .8794835, .8777317};
  EXPECT_EQ(blocks_by_stage(keep_least_similar(a, 14), 9),
            (std::vector<Layers>{{0, 1, 2, 4, 6, 7}, {0}, {0, 4, 5, 6, 7, 8}}));
}

TEST(AdjacentRule, PublishedBlocksOfResnet56OnCifar100) {
  const Values a{.89893186, .98167545, .8873335,  .99292386, .99385583, .9889188,  .992875,
                 .9876197,  .9502824,  .9415885,  .97993964, .97814405, .98698264, .9881584,
                 .9923223,  .9799606,  .98457384, .97167224, .9489094,  .9498153,  .91059005,
                 .8620137,  .8641551,  .9412409,  .96756804, .9870943,  .9951965};
  EXPECT_EQ(blocks_by_stage(keep_least_similar(a, 15), 9),
            (std::vector<Layers>{{0, 2, 8}, {0, 1, 2, 8}, {0, 1, 2, 3, 4, 5, 6}}));
}

TEST(AdjacentRule, PublishedConvolutionsOfVgg19) {
  const Values a{.81111956, .5691167, .7536302,  .7598313,  .84407616,
                 .8530037,  .7927989, .79135907, .77015305, .88825816,
                 .77569777, .7998207, .91992533, .86013335, .9487301};
  EXPECT_EQ(keep_least_similar(a, 8), (Layers{0, 2, 3, 4, 7, 8, 9, 11}));
}

TEST(AdjacentRule, ProtectedLayersStayAndTiesGoToTheLowerIndex) {
  const Values a{.1, .9, .5, .5, .95};
  EXPECT_EQ(keep_least_similar(a, 3), (Layers{0, 1, 3}));
  EXPECT_EQ(keep_least_similar(a, 3, {5}), (Layers{0, 1, 5}));
  EXPECT_EQ(keep_least_similar(a, 1), (Layers{0}));
  EXPECT_EQ(keep_least_similar(a, 6).size(), 6u);
  const Error few = thrown_by([&] { keep_least_similar(a, 2, {0, 2, 5}); });
  EXPECT_EQ(few.kind(), ErrorKind::kUsage);
  EXPECT_EQ(few.subject(), "layers to keep");
  EXPECT_EQ(few.message(), "2 are asked for, but 3 are protected");
  EXPECT_FALSE(few.hint_text().empty());
  EXPECT_EQ(thrown_by([&] { keep_least_similar(a, 7); }).message(),
            "7 are asked for, but there are 6 layers; 1 to 6 can stay");
  EXPECT_EQ(thrown_by([&] { keep_least_similar(a, 0); }).kind(), ErrorKind::kUsage);
}

TEST(AdjacentRule, DegeneratePairsCountZero) {
  at::Tensor cka = at::eye(3, at::kDouble);
  cka[0][1] = cka[1][0] = std::nan("");
  cka[1][2] = cka[2][1] = 0.25;
  EXPECT_EQ(adjacent_similarity(cka), (Values{0, 0.25}));
  EXPECT_EQ(thrown_by([] {
              adjacent_similarity(at::zeros({2, 3}));
            }).message(),
            "has shape [2, 3], expected a square");
}

TEST(Importance, TheLargestStay) {
  EXPECT_EQ(keep_most_important(Values{1, 5, 3, 5}, 2), (Layers{1, 3}));
  EXPECT_EQ(keep_most_important(Values{1, 5, 3, 5}, 2, {0}), (Layers{0, 1}));
}

/// Two groups of layers, alike within and unlike between.
at::Tensor two_groups() {
  at::Tensor cka = at::full({6, 6}, 0.1, at::kDouble);
  cka.narrow(0, 0, 2).narrow(1, 0, 2).fill_(1);
  cka.narrow(0, 2, 4).narrow(1, 2, 4).fill_(1);
  return cka;
}

TEST(Segments, GroupsOfAlikeLayersAreFound) {
  // Row sums: 2 + 4 * 0.1 = 2.4 and 4 + 2 * 0.1 = 4.2.
  for (const SegmentOn on : {SegmentOn::kSum, SegmentOn::kRows}) {
    const Segmentation found = segment_layers(two_groups(), {.on = on});
    EXPECT_EQ(found.starts, (Layers{0, 2}));
    EXPECT_EQ(found.cost, 0);
  }
}

TEST(Segments, EqualSumsAreToldApartByRowsOnly) {
  at::Tensor cka = at::zeros({4, 4}, at::kDouble);
  cka.narrow(0, 0, 2).narrow(1, 0, 2).fill_(1);
  cka.narrow(0, 2, 2).narrow(1, 2, 2).fill_(1);
  EXPECT_EQ(segment_layers(cka, {.on = SegmentOn::kSum}).k, 1);
  EXPECT_EQ(segment_layers(cka, {.on = SegmentOn::kRows}).starts, (Layers{0, 2}));
}

Segmentation cut(Layers starts) {
  Segmentation segmentation;
  segmentation.k = static_cast<std::int64_t>(starts.size());
  segmentation.starts = std::move(starts);
  return segmentation;
}

TEST(Budgets, LargestRemainder) {
  // Segments of 3, 8, 13, 2, 2 of 28, 16 stay: quotas 1.71 4.57 7.43 1.14 1.14; the two largest
  // remainders of floors 1 4 7 1 1 get one more.
  const Segmentation s = cut({0, 3, 11, 24, 26});
  EXPECT_EQ(proportional_budgets(s, 28, 16), (Layers{2, 5, 7, 1, 1}));
  EXPECT_EQ(proportional_budgets(s, 28, 28), (Layers{3, 8, 13, 2, 2}));
  EXPECT_EQ(proportional_budgets(s, 28, 5), (Layers{1, 1, 1, 1, 1}));
  // Two protected layers in a segment of two raise its budget; the most generous segment pays.
  EXPECT_EQ(proportional_budgets(s, 28, 16, {24, 25}), (Layers{2, 4, 7, 2, 1}));
}

TEST(Budgets, ImpossibleOnesAreRefusedWithBothNumbers) {
  const Segmentation s = cut({0, 3, 11, 24, 26});
  const Error few = thrown_by([&] { proportional_budgets(s, 28, 5, {0, 10, 19, 20}); });
  EXPECT_EQ(few.message(),
            "5 are asked for, but 5 segments with 4 protected layers need at least 6");
  EXPECT_EQ(thrown_by([&] { proportional_budgets(s, 28, 29); }).message(),
            "29 are asked for, but there are 28");
  check_budgets({3, 4, 5, 2, 2}, s, 28, 16);
  const Error count = thrown_by([&] { check_budgets({3, 4}, s, 28, 7); });
  EXPECT_EQ(count.subject(), "--segment-keep");
  EXPECT_EQ(count.message(), "has 2 budgets, but there are 5 segments, of 3,8,13,2,2 layers");
  const Error both = thrown_by([&] { check_budgets({4, 4, 5, 0, 2}, s, 28, 16); });
  EXPECT_NE(both.message().find("keeps 4 of segment 0, which has 3 layers; 1 to 3 can stay"),
            std::string::npos);
  EXPECT_NE(both.message().find("keeps 0 of segment 3"), std::string::npos);
  EXPECT_NE(both.message().find("adds up to 15, but 16 layers are to stay"), std::string::npos);
  EXPECT_EQ(both.hint_text(), "the segments have 3,8,13,2,2 layers");
}

TEST(Budgets, TheTopOfEachSegmentStays) {
  const Segmentation s = cut({0, 2});
  const Values importance{5, 1, 2, 9, 3, 3};
  EXPECT_EQ(keep_top_of_segments(importance, s, {1, 2}), (Layers{0, 3, 4}));
  EXPECT_EQ(keep_top_of_segments(importance, s, {1, 2}, {2}), (Layers{0, 2, 3}));
}

TEST(Segments, OnePlanFromMatrixToKeptLayers) {
  const Values importance{1, 2, 9, 8, 7, 6};
  const SegmentPlan plan = plan_segments(two_groups(), importance, 3, {});
  EXPECT_EQ(plan.budgets, (Layers{1, 2}));
  EXPECT_EQ(plan.kept, (Layers{1, 2, 3}));
  EXPECT_EQ(plan_segments(two_groups(), importance, 3, {.budgets = {2, 1}}, {5}).kept,
            (Layers{0, 1, 5}));
  EXPECT_EQ(plan_segments(two_groups(), importance, 1, {}).segmentation.k, 1);
  EXPECT_EQ(thrown_by([&] { plan_segments(two_groups(), importance, 1, {.k_max = 2}); }).message(),
            "1 are asked for, but 2 segments with 0 protected layers need at least 2");
  const Error more = thrown_by([&] { plan_segments(two_groups(), importance, 3, {.k_max = 7}); });
  EXPECT_EQ(more.message(), "at most 7 segments of 6 members were asked for; 1 to 6 are possible");
  EXPECT_EQ(thrown_by([&] {
              plan_segments(two_groups(), importance, 3, {.budgets = {1, 1}});
            }).message(),
            "adds up to 2, but 3 layers are to stay");
}

}  // namespace
}  // namespace espalier
