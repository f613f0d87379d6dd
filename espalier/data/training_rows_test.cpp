// Training rows: labels shift by one inside each row only, padding carries nothing, the digest sees
// every border, the split is a pure function of the seed.
#include "espalier/data/training_rows.h"

#include <algorithm>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

constexpr TokenId kX = kIgnoredLabel;

TrainingRows three_rows() {
  TrainingRows rows;
  rows.add({{5, 6, 7, 8}, {kX, kX, 7, 8}});
  rows.add({{9, 10}, {9, 10}});
  rows.add({{11, 12, 13}, {kX, 12, kX}});
  return rows;
}

std::vector<std::int64_t> values(const at::Tensor& t) {
  const at::Tensor flat = t.to(at::kLong).contiguous();
  return {flat.const_data_ptr<std::int64_t>(), flat.const_data_ptr<std::int64_t>() + flat.numel()};
}

TEST(TrainingRows, CountsTokensAndPredictedPositions) {
  const TrainingRows rows = three_rows();
  EXPECT_EQ(rows.size(), 3);
  EXPECT_EQ(rows.tokens(), 9);
  EXPECT_EQ(rows.predicted(), 4);  // 2 + 1 + 1: labels[0] never counts
  EXPECT_EQ(rows.longest(), 4);
  EXPECT_EQ(rows.lengths(), (std::vector<std::int64_t>{4, 2, 3}));
}

TEST(TrainingRows, RefusesRowsThatNobodyCouldTrainOn) {
  TrainingRows rows;
  EXPECT_THROW(rows.add({{1, 2}, {kX}}), Error);
  EXPECT_THROW(rows.add({{1, 2}, {kX, 3}}), Error);  // a label that is not the id
  EXPECT_THROW(rows.add({{1, 2}, {1, kX}}), Error);  // only labels[0]: nothing predicted
  EXPECT_THROW(rows.add({{}, {}}), Error);
  EXPECT_EQ(rows.size(), 0);
}

TEST(TrainingRows, PackedTargetsShiftInsideEachRowOnly) {
  const std::vector<std::int64_t> order{1, 0, 2};
  const PackedBatch batch = pack_rows(three_rows(), order);
  EXPECT_EQ(batch.ids.sizes(), (at::IntArrayRef{1, 9}));
  EXPECT_EQ(values(batch.ids), (std::vector<std::int64_t>{9, 10, 5, 6, 7, 8, 11, 12, 13}));
  EXPECT_EQ(values(batch.targets), (std::vector<std::int64_t>{10, kX, kX, 7, 8, kX, 12, kX, kX}));
  EXPECT_EQ(batch.lengths, (std::vector<std::int64_t>{2, 4, 3}));
  EXPECT_EQ(batch.predicted, 4);
  EXPECT_THROW(pack_rows(three_rows(), std::vector<std::int64_t>{3}), Error);
  EXPECT_THROW(pack_rows(three_rows(), std::vector<std::int64_t>{}), Error);
}

TEST(TrainingRows, PaddedRowsHoldTheSameTargetsAsPackedOnes) {
  const TrainingRows rows = three_rows();
  const std::vector<std::int64_t> order{0, 1, 2};
  const PackedBatch packed = pack_rows(rows, order);
  for (const PadSide side : {PadSide::kLeft, PadSide::kRight}) {
    const PaddedBatch padded = pad_rows(rows, order, 3, side);
    EXPECT_EQ(padded.ids.sizes(), (at::IntArrayRef{3, 8}));
    EXPECT_TRUE(at::equal(padded.ids.masked_select(padded.mask), packed.ids.flatten()));
    EXPECT_TRUE(at::equal(padded.targets.masked_select(padded.mask), packed.targets));
    EXPECT_TRUE(padded.ids.masked_select(padded.mask.logical_not()).eq(3).all().item<bool>());
    EXPECT_TRUE(padded.targets.masked_select(padded.mask.logical_not()).eq(kX).all().item<bool>());
    EXPECT_EQ(padded.predicted, packed.predicted);
    EXPECT_EQ(padded.mask[1][side == PadSide::kLeft ? 7 : 0].item<bool>(), true);
    EXPECT_EQ(padded.mask[1][side == PadSide::kLeft ? 0 : 7].item<bool>(), false);
  }
  EXPECT_EQ(pad_rows(rows, order, 0, PadSide::kRight, 1).ids.size(1), 4);
  EXPECT_EQ(pad_rows(rows, order, 0, PadSide::kRight, 4, 9).ids.size(1), 12);
}

TEST(TrainingRows, DigestSeesIdsLabelsAndBorders) {
  const std::string digest = three_rows().digest();
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(digest, three_rows().digest());
  TrainingRows label, border, whole;
  label.add({{5, 6, 7, 8}, {kX, 6, 7, 8}});
  border.add({{5, 6}, {5, 6}});
  border.add({{7, 8}, {7, 8}});
  whole.add({{5, 6, 7, 8}, {5, 6, 7, 8}});
  EXPECT_NE(label.digest(), whole.digest());
  EXPECT_NE(border.digest(), whole.digest());
}

TEST(TrainingRows, TextSegmentsAreRowsWhoseEveryTokenIsALabel) {
  TokenText text;
  text.path = "corpus.txt";
  text.ids = {1, 2, 3, 4, 5, 6, 7};
  const TrainingRows rows = rows_of_text(text, 3);
  ASSERT_EQ(rows.size(), 2);
  EXPECT_EQ(rows.row(1).ids, (std::vector<TokenId>{4, 5, 6}));
  EXPECT_EQ(rows.row(1).labels, rows.row(1).ids);
  EXPECT_EQ(rows.predicted(), 4);
  EXPECT_EQ(rows.counts.read, 2);
  EXPECT_THROW(rows_of_text(text, 8), Error);
}

TEST(TrainingRows, TheHeldOutRowsAreDrawnBySeedAndKeepTheirOrder) {
  TrainingRows rows;
  for (TokenId i = 0; i < 50; ++i) rows.add({{i, i}, {kX, i}});
  rows.counts.read = 60;
  const auto [train, held_out] = split_held_out(rows, 10);
  EXPECT_EQ(train.size(), 40);
  ASSERT_EQ(held_out.size(), 10);
  EXPECT_EQ(train.counts.read, 60);
  std::vector<TokenId> seen;
  for (const TrainingRows* part : {&train, &held_out}) {
    for (std::int64_t i = 0; i < part->size(); ++i) {
      seen.push_back(part->row(i).ids[0]);
      if (i > 0) {
        EXPECT_LT(part->row(i - 1).ids[0], part->row(i).ids[0]);
      }
    }
  }
  std::sort(seen.begin(), seen.end());
  for (TokenId i = 0; i < 50; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(split_held_out(rows, 10).second.digest(), held_out.digest());
  EXPECT_NE(split_held_out(rows, 10, 43).second.digest(), held_out.digest());
  EXPECT_TRUE(split_held_out(rows, 0).second.empty());
}

TEST(TrainingRows, AHoldOutThatLeavesNothingIsRefused) {
  for (const std::int64_t held_out : {3, 4, -1}) {
    try {
      split_held_out(three_rows(), held_out);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_EQ(error.subject(), "--holdout");
      EXPECT_NE(error.message().find("there are 3 rows"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace espalier
