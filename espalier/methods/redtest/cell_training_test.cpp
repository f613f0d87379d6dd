// Cells trained for real on a few made-up images: what is measured, that it repeats bit by bit, and
// that a stopped search goes on within the cell.
#include "espalier/methods/redtest/cell_training.h"

#include <atomic>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/eval/accuracy.h"
#include "espalier/methods/redtest/search.h"
#include "espalier/tensor/tensor_view.h"

#include "tests/support/thrown_by.h"

namespace espalier::redtest {
namespace {

using testing_support::thrown_by;

/// Four flat colours under noise, one after the other.
ImageSet flat_images(std::int64_t n) {
  const at::Tensor colours =
      at::tensor({200, 30, 30, 30, 200, 30, 30, 30, 200, 120, 120, 120}, at::kFloat).view({4, 3});
  ImageSet set;
  set.labels = at::arange(n, at::kLong).remainder(4);
  RandomStream noise(5, "noise");
  set.pixels = at::empty({n, 3, 8, 8}, at::kByte);
  auto* pixel = set.pixels.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < set.pixels.numel(); ++i) {
    const double base = colours[i / 192 % 4][i / 64 % 3].item<double>();
    pixel[i] = static_cast<std::uint8_t>(base + static_cast<double>(noise.below(40)));
  }
  set.classes = {"blue", "green", "grey", "red"};
  for (std::int64_t i = 0; i < n; ++i) set.files.push_back(std::to_string(i));
  return set;
}

const NatsCell& small_cell() {
  static const NatsCell cell = parse_nats_cell(
      "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|");
  return cell;
}

class CellTrainingTest : public testing::Test {
 protected:
  void SetUp() override {
    threads_ = at::get_num_threads();
    at::set_num_threads(1);
    training_.classifier = short_training(3);
    training_.classifier.batch_size = 8;
    training_.classifier.seed = 11;
    training_.msrs_batch_size = 8;
    training_.work = dir_ / "work";
    images_ = split_for_search(flat_images(56), 16, std::nullopt);
  }
  void TearDown() override { at::set_num_threads(threads_); }

  CellResult train(const std::filesystem::path& weights = {},
                   const StopToken& stop = never_stop()) const {
    return train_cell(small_cell(), images_, training_, weights, silent_reporter(), stop);
  }

  TempFolder dir_;
  CellTraining training_;
  SearchImages images_;
  int threads_ = 1;
};

TEST_F(CellTrainingTest, TheLastImagesAreHeldOut) {
  EXPECT_EQ(images_.training.size(), 40);
  EXPECT_EQ(images_.held_out.size(), 16);
  EXPECT_EQ(images_.training.pixels.size(0), 40);
  EXPECT_EQ(images_.held_out.files.front(), "40");
  EXPECT_TRUE(at::equal(images_.held_out.pixels, flat_images(56).pixels.slice(0, 40)));
  EXPECT_TRUE(at::equal(images_.held_out.labels.bincount(), at::full({4}, 4, at::kLong)));
  EXPECT_EQ(split_for_search(flat_images(56), 0, std::nullopt).held_out.size(), 5) << "a tenth";
  Error error = thrown_by([] { split_for_search(flat_images(30), 0, std::nullopt); });
  EXPECT_EQ(error.subject(), "--held-out");
  EXPECT_EQ(error.message(),
            "of 30 images 3 would be held out and 27 left to train, but both need at least one of "
            "each of the 4 classes");
  EXPECT_EQ(error.hint_text(), "--held-out between 4 and 26, or a larger --limit");
  error = thrown_by([] { split_for_search(flat_images(30), 27, std::nullopt); });
  EXPECT_EQ(error.kind(), ErrorKind::kUsage);
}

TEST_F(CellTrainingTest, BatchesOfMsrsAreCheckedBeforehand) {
  check_cell_training(training_, images_);
  training_.msrs_batches = 2;
  check_cell_training(training_, images_);
  training_.msrs_batches = 3;
  Error error = thrown_by([&] { check_cell_training(training_, images_); });
  EXPECT_EQ(error.message(), "MSRS needs 3 x 8 images, but only 16 are held out");
  EXPECT_EQ(error.hint_text(), "--held-out 24, or --msrs-batch-size 5");
  training_.msrs_batches = 0;
  training_.msrs_batch_size = 17;
  error = thrown_by([&] { check_cell_training(training_, images_); });
  EXPECT_EQ(error.message(), "MSRS needs 1 x 17 images, but only 16 are held out");
  training_.msrs_batch_size = 3;
  error = thrown_by([&] { check_cell_training(training_, images_); });
  EXPECT_EQ(error.message(), "is 3, but CKA needs at least 4 images");
}

TEST_F(CellTrainingTest, MeasuresTheTrainedNetwork) {
  images_.test = images_.training;
  training_.classifier.epochs = 8;
  training_.classifier.lr = 0.02;
  const CellResult result = train(dir_ / "net");
  EXPECT_EQ(result.images, 16);
  EXPECT_GT(result.accuracy, 0.9) << "flat colours are easy";
  EXPECT_TRUE(result.test_accuracy.has_value());
  // The saved network is the measured one.
  const Cnn net = Cnn::load(dir_ / "net");
  EXPECT_EQ(net.config().arch, nats_cell_text(small_cell()));
  EXPECT_EQ(net.config().num_classes, 4);
  EXPECT_EQ(net.config().classes, images_.training.classes);
  EXPECT_EQ(net.config().image_size, 8);
  EXPECT_EQ(net.parameter_count(), result.parameters);
  const Accuracy again =
      measure_accuracy(net, images_.held_out, 1000, at::kFloat, silent_reporter(), never_stop());
  EXPECT_EQ(again.accuracy, result.accuracy);
  ImageSample sample;
  sample.pixels = images_.held_out.pixels;
  sample.labels = images_.held_out.labels;
  sample.batches = 2;
  sample.batch_size = 8;
  const Redundancy redundancy = measure_redundancy(net, sample, {}, silent_reporter());
  EXPECT_NEAR(result.msrs, redundancy.msrs.value, 1e-9);
  EXPECT_NEAR(result.msrs_normalised, redundancy.msrs.value / 153, 1e-9) << "18 layers";
  EXPECT_FALSE(std::filesystem::exists(training_.work / "201402.partial"));
  EXPECT_TRUE(std::filesystem::is_empty(training_.work)) << "nothing is left of the training";
}

TEST_F(CellTrainingTest, RepeatsBitByBitAndTheSeedMatters) {
  const CellResult first = train(), second = train();
  EXPECT_EQ(first.loss, second.loss);
  EXPECT_EQ(first.msrs, second.msrs);
  EXPECT_EQ(first.accuracy, second.accuracy);
  training_.classifier.seed = 12;
  EXPECT_NE(train().loss, first.loss);
}

class StopAfter final : public StopToken {
 public:
  explicit StopAfter(std::int64_t asked) : left_(asked) {}
  bool stop_requested() const override { return left_-- <= 0; }

 private:
  mutable std::int64_t left_;
};

TEST_F(CellTrainingTest, AStoppedCellGoesOnWhereItWas) {
  const CellResult whole = train();
  EXPECT_THROW(train({}, StopAfter(7)), Interrupted);
  EXPECT_FALSE(std::filesystem::is_empty(training_.work));
  const CellResult resumed = train();
  EXPECT_EQ(resumed.loss, whole.loss);
  EXPECT_EQ(resumed.msrs, whole.msrs);
  EXPECT_TRUE(std::filesystem::is_empty(training_.work));
}

TEST_F(CellTrainingTest, TwoAtATimeGiveTheSameNumbers) {
  SearchRequest request;
  request.rules.strategy = SearchStrategy::kRandom;
  request.rules.evaluations = 4;
  training_.classifier.epochs = 1;
  const auto search = [&](std::int64_t jobs, const std::filesystem::path& out) {
    request.jobs = jobs;
    SearchHooks hooks;
    hooks.evaluate = [&](const NatsCell& cell, const std::filesystem::path& weights,
                         Reporter& reporter) {
      return train_cell(cell, images_, training_, weights, reporter, never_stop());
    };
    RunFolder run = RunFolder::create(out, OutputPolicy::kFresh, {});
    return run_search(request, hooks, run, silent_reporter(), never_stop());
  };
  const SearchOutcome one = search(1, dir_ / "one"), two = search(2, dir_ / "two");
  ASSERT_EQ(one.cells.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(one.cells[i].cell, two.cells[i].cell);
    EXPECT_EQ(one.cells[i].result.loss, two.cells[i].result.loss);
    EXPECT_EQ(one.cells[i].result.msrs, two.cells[i].result.msrs);
  }
}

/// Counts warnings: a step that cannot be recorded as a CUDA graph is one.
class WarningCounter final : public Reporter {
 public:
  void log(LogLevel level, std::string_view) override { warnings += level == LogLevel::kWarn; }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    return silent_reporter().phase(name, total, unit);
  }
  std::atomic<int> warnings = 0;
};

TEST_F(CellTrainingTest, OnOneGpuFourAtATimeAreAllRecorded) {
  if (!has_cuda()) GTEST_SKIP() << "no CUDA device";
  training_.device = at::Device(at::kCUDA, 0);
  training_.classifier.type = at::kBFloat16;
  training_.classifier.epochs = 6;
  SearchRequest request;
  request.rules.strategy = SearchStrategy::kRandom;
  // More than the pool has streams: they are given out in turn.
  request.rules.evaluations = 40;
  request.jobs = 4;
  SearchHooks hooks;
  hooks.evaluate = [&](const NatsCell& cell, const std::filesystem::path& weights,
                       Reporter& reporter) {
    return train_cell(cell, images_, training_, weights, reporter, never_stop());
  };
  RunFolder run = RunFolder::create(dir_ / "gpu", OutputPolicy::kFresh, {});
  WarningCounter reporter;
  const SearchOutcome outcome = run_search(request, hooks, run, reporter, never_stop());
  EXPECT_EQ(reporter.warnings, 0);
  double sum = 0;
  for (const SearchedCell& cell : outcome.cells) sum += cell.result.accuracy;
  EXPECT_GT(sum / 40, 0.7)
      << "flat colours are easy; a stream that mixed two cells would not learn";
}

TEST_F(CellTrainingTest, ALossThatIsNotFiniteIsAnInputError) {
  training_.classifier.lr = 1e30;
  EXPECT_EQ(thrown_by([&] { train(); }).kind(), ErrorKind::kInput);
}

}  // namespace
}  // namespace espalier::redtest
