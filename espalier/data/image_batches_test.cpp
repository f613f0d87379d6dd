// The same batches from memory and from threads, in any order of asking.
#include "espalier/data/image_batches.h"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/image/encode.h"

namespace espalier {
namespace {

using Rows = std::vector<std::int64_t>;

/// 23 images of two classes, each of one value of its own.
class Images : public ::testing::Test {
 protected:
  Images() {
    for (int i = 0; i < 23; ++i) write(i, png(static_cast<std::uint8_t>(i)));
  }
  static std::string png(std::uint8_t value, std::int64_t side = 4) {
    return encode_png({side, side, 3,
                       std::vector<std::uint8_t>(static_cast<std::size_t>(3 * side * side), value),
                       0});
  }
  void write(int i, const std::string& bytes) {
    folder.write(format("{}/{:02}.png", i % 2 == 0 ? "cat" : "dog", i), bytes);
  }
  ImageBatches in_memory(const ImageBatchOptions& options, const ImageSetOptions& set = {}) {
    return {load_image_set(folder.path(), set, silent_reporter()), options};
  }
  ImageBatches decoded(const ImageBatchOptions& options, const ImageSetOptions& set = {}) {
    return {index_images(folder.path(), set, silent_reporter()), set, options, silent_reporter()};
  }
  TempFolder folder;
};

void expect_equal(const ImageBatch& a, const ImageBatch& b) {
  EXPECT_EQ(a.rows, b.rows);
  EXPECT_TRUE(at::equal(a.pixels, b.pixels));
  EXPECT_TRUE(at::equal(a.labels, b.labels));
}

TEST_F(Images, BothSourcesGiveTheSameBits) {
  for (const std::int64_t threads : {1, 3}) {
    const ImageBatchOptions options{.batch_size = 5, .seed = 3, .threads = threads};
    ImageBatches memory = in_memory(options), files = decoded(options);
    EXPECT_TRUE(memory.in_memory());
    EXPECT_FALSE(files.in_memory());
    EXPECT_EQ(memory.size(), 23);
    EXPECT_EQ(files.size(), 23);
    EXPECT_EQ(files.classes(), (std::vector<std::string>{"cat", "dog"}));
    EXPECT_EQ(files.steps_per_epoch(), 5);
    for (std::int64_t step = 0; step < 12; ++step)
      expect_equal(memory.batch(step), files.batch(step));
    for (const std::int64_t step : {40, 2, 2, 3, 9, 0})
      expect_equal(memory.batch(step), files.batch(step));
  }
}

TEST_F(Images, ABatchHoldsItsRows) {
  ImageBatches batches = in_memory({.batch_size = 6, .seed = 1});
  Rows seen;
  for (std::int64_t step = 0; step < batches.steps_per_epoch(); ++step) {
    const ImageBatch batch = batches.batch(step);
    EXPECT_EQ(batch.rows.size(), step == 3 ? 5u : 6u);
    EXPECT_EQ(batch.pixels.sizes().vec(),
              (Rows{static_cast<std::int64_t>(batch.rows.size()), 3, 4, 4}));
    for (std::size_t i = 0; i < batch.rows.size(); ++i) {
      // Round-robin: row k holds the value k, of class k % 2.
      const auto at = static_cast<std::int64_t>(i);
      EXPECT_EQ(batch.pixels[at][2][3][3].item<std::int64_t>(), batch.rows[i]);
      EXPECT_EQ(batch.labels[at].item<std::int64_t>(), batch.rows[i] % 2);
      seen.push_back(batch.rows[i]);
    }
  }
  std::sort(seen.begin(), seen.end());
  Rows all(23);
  for (std::size_t i = 0; i < 23; ++i) all[i] = static_cast<std::int64_t>(i);
  EXPECT_EQ(seen, all);
  EXPECT_EQ(batches.epoch_of(3), 0);
  EXPECT_EQ(batches.epoch_of(4), 1);
}

TEST_F(Images, TheOrderIsRowOrders) {
  ImageBatches keep = in_memory({.batch_size = 6, .seed = 9});
  ImageBatches drop = in_memory({.batch_size = 6, .seed = 9, .last = LastBatch::kDrop});
  RowOrder order(23, 6, 9);
  EXPECT_EQ(keep.steps_per_epoch(), 4);
  EXPECT_EQ(drop.steps_per_epoch(), 3);
  for (std::int64_t step = 0; step < 8; ++step) EXPECT_EQ(keep.batch(step).rows, order.batch(step));
  EXPECT_EQ(drop.batch(2).rows, order.batch(2));
  EXPECT_EQ(drop.batch(3).rows, order.batch(4));  // the fourth of an epoch is not whole
  ImageBatches stored = in_memory({.batch_size = 10, .order = ImageOrder::kAsStored});
  EXPECT_EQ(stored.batch(2).rows, (Rows{20, 21, 22}));
  EXPECT_EQ(stored.batch(3).rows, (Rows{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST_F(Images, BrokenImagesAreLeftOutOfBothOrNamedByBoth) {
  write(4, "broken");
  const ImageSetOptions skip{.broken = BrokenRule::kSkip};
  const ImageBatchOptions options{.batch_size = 8, .threads = 2};
  ImageBatches memory = in_memory(options, skip), files = decoded(options, skip);
  EXPECT_EQ(files.size(), 22);
  EXPECT_EQ(files.broken(), std::vector<std::string>{"cat/04.png"});
  EXPECT_EQ(memory.broken(), files.broken());
  for (std::int64_t step = 0; step < 6; ++step) expect_equal(memory.batch(step), files.batch(step));

  ImageBatches refusing = decoded(options);
  int refused = 0;
  for (std::int64_t step = 0; step < 3; ++step) {
    try {
      refusing.batch(step);
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      EXPECT_EQ(error.message(),
                "cat/04.png: is not a JPEG, PNG or WebP image (it begins with 62 72 6f 6b)");
    }
  }
  EXPECT_EQ(refused, 1);
}

TEST_F(Images, AnotherSizeIsRefusedByItsBatch) {
  write(22, png(22, 5));
  ImageBatches files = decoded({.batch_size = 11, .order = ImageOrder::kAsStored, .threads = 2});
  EXPECT_EQ(files.batch(1).rows[0], 11);
  try {
    files.batch(2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(),
              "mixed image sizes: cat/00.png is 4 x 4, cat/22.png is 5 x 5 (width x height)");
  }
}

TEST_F(Images, OpenChoosesByMemory) {
  const auto open = [&](std::uint64_t limit) {
    return open_image_batches(folder.path(), {.max_memory = limit}, {.batch_size = 4, .threads = 1},
                              silent_reporter());
  };
  ImageBatches memory = open(23 * 48), files = open(23 * 48 - 1);
  EXPECT_TRUE(memory.in_memory());
  EXPECT_FALSE(files.in_memory());
  expect_equal(memory.batch(3), files.batch(3));
}

TEST_F(Images, RefusesBatchesThatCannotBe) {
  const auto message = [&](const ImageBatchOptions& options) {
    try {
      in_memory(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      return std::string(error.what()) + " | " + error.hint_text();
    }
    return std::string("made");
  };
  EXPECT_EQ(message({.batch_size = 24, .last = LastBatch::kDrop}),
            "images: there are 23, fewer than one batch of 24 | a smaller batch, or keep the last "
            "one");
  EXPECT_EQ(message({.batch_size = 0}),
            "training rows: 23 rows in batches of 0: both must be at least 1 | ");
}

}  // namespace
}  // namespace espalier
