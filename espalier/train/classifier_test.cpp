// A small net on a few made-up images: what a resumed run, bfloat16 and other layouts must equal,
// and what is refused.
#include "espalier/train/classifier.h"

#include <cmath>
#include <fstream>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "espalier/base/error.h"
#include "espalier/train/classifier_estimate.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

/// Four classes, each a flat colour of its own with a little noise; the last batch is smaller.
ImageSet flat_images(std::int64_t n = 22) {
  at::manual_seed(5);
  ImageSet set;
  set.labels = at::arange(n) % 4;
  const at::Tensor colours =
      at::tensor({200, 30, 30, 30, 200, 30, 30, 30, 200, 120, 120, 120}, at::kFloat).view({4, 3});
  set.pixels =
      (colours.index_select(0, set.labels).view({n, 3, 1, 1}) + 10 * at::randn({n, 3, 16, 16}))
          .clamp(0, 255)
          .to(at::kByte);
  set.classes = {"blue", "green", "grey", "red"};
  for (std::int64_t i = 0; i < n; ++i) set.files.push_back("image" + std::to_string(i));
  return set;
}

ClassifierOptions small_options() {
  ClassifierOptions o;
  o.epochs = 3;
  o.batch_size = 8;
  o.lr = 0.05;
  o.augment = {2, true, 0};
  o.label_smoothing = 0.1;
  o.ema = 0.9;
  o.seed = 3;
  o.must_match = {{"images", "flat"}};
  return o;
}

/// Asked once before every step.
class StopBeforeStep : public StopToken {
 public:
  explicit StopBeforeStep(std::int64_t steps) : left_(steps) {}
  bool stop_requested() const override { return left_-- <= 0; }

 private:
  mutable std::int64_t left_;
};

/// As kill -9 would: nothing is saved any more.
class DieBeforeStep : public StopToken {
 public:
  explicit DieBeforeStep(std::int64_t steps) : left_(steps) {}
  bool stop_requested() const override {
    if (left_-- <= 0) throw std::runtime_error("killed");
    return false;
  }

 private:
  mutable std::int64_t left_;
};

class TrainClassifier : public testing::Test {
 protected:
  void SetUp() override {
    threads_ = at::get_num_threads();
    at::set_num_threads(1);
    out_ = fs::path(testing::TempDir()) / "espalier_classifier_test";
    clean();
  }
  void TearDown() override {
    clean();
    at::set_num_threads(threads_);
  }
  void clean() {
    fs::remove_all(out_);
    fs::remove_all(out_.string() + ".partial");
  }
  static Cnn net(const std::string& arch = "resnet8") { return Cnn::make(cnn_config(arch, 4), 1); }

  TrainResult run(Cnn& cnn, const ClassifierOptions& options,
                  OutputPolicy policy = OutputPolicy::kFresh,
                  const StopToken& stop = never_stop()) {
    RunFolder folder = RunFolder::create(out_, policy, {});
    return train_classifier(cnn, images_, options, folder, silent_reporter(), stop);
  }

  static void expect_equal(Cnn& a, Cnn& b) {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for_each_tensor(a, "",
                    [&](const std::string& name, at::Tensor& t) { tensors.emplace_back(name, t); });
    std::size_t i = 0;
    for_each_tensor(b, "", [&](const std::string& name, at::Tensor& t) {
      EXPECT_EQ(name, tensors[i].first);
      EXPECT_TRUE(at::equal(t, tensors[i].second)) << name;
      ++i;
    });
  }

  ImageSet images_ = flat_images();
  fs::path out_;
  int threads_ = 1;
};

TEST(ClassificationLoss, FollowsTheFormula) {
  const at::Tensor logits = at::tensor({2.0f, 0.0f, -1.0f, 0.5f, 0.5f, 0.5f}).view({2, 3});
  const at::Tensor labels = at::tensor({0, 2}, at::kLong);
  const double z = std::log(std::exp(2.0) + 1 + std::exp(-1.0)), third = std::log(3.0);
  EXPECT_NEAR(classification_loss(logits, labels, 0).item<double>(), ((z - 2) + third) / 2, 1e-6);
  // 0.3 of the target on all three classes alike, so 0.1 on each.
  const double first = 0.8 * (z - 2) + 0.1 * z + 0.1 * (z + 1);
  EXPECT_NEAR(classification_loss(logits, labels, 0.3).item<double>(), (first + third) / 2, 1e-6);
  const at::Tensor half = classification_loss(logits.to(at::kBFloat16), labels, 0);
  EXPECT_EQ(half.scalar_type(), at::kFloat);
}

TEST_F(TrainClassifier, LearnsAndReportsImages) {
  Cnn cnn = net();
  ClassifierOptions options = small_options();
  options.epochs = 8;
  options.label_smoothing = 0;
  options.ema = 0;
  EXPECT_EQ(classifier_steps(images_, options), 24);
  std::int64_t measured = 0;
  options.evaluate = [&](const Cnn& one) {
    ++measured;
    EXPECT_EQ(one.config().num_classes, 4);
    return Evaluation{1.0 / static_cast<double>(measured), {{"eval_accuracy", 0.5}}};
  };
  options.evaluate_epochs = 3;
  RunFolder folder = RunFolder::create(out_, OutputPolicy::kFresh, {});
  const TrainResult r =
      train_classifier(cnn, images_, options, folder, silent_reporter(), never_stop());
  EXPECT_EQ(r.steps, 24);
  EXPECT_EQ(r.tokens, 8 * 22);
  EXPECT_EQ(measured, 3);  // after epochs 3 and 6, and at the end
  EXPECT_GT(r.losses.front(), 1.0);
  EXPECT_LT(r.losses.back(), 0.3);
  std::ifstream in(folder.run_dir() / "metrics.csv");
  std::string header;
  std::getline(in, header);
  EXPECT_NE(header.find("images_per_second"), std::string::npos) << header;
  for (const NamedTensor& parameter : cnn.parameters()) {
    EXPECT_FALSE(parameter.tensor.requires_grad()) << parameter.name;
    EXPECT_EQ(parameter.tensor.scalar_type(), at::kFloat);
  }
  for (const NamedTensor& buffer : cnn.buffers())
    if (buffer.name.ends_with("num_batches_tracked")) {
      EXPECT_EQ(buffer.tensor.item<std::int64_t>(), 24);
    }
}

TEST_F(TrainClassifier, ResumingEqualsRunningThroughBitByBit) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    ClassifierOptions options = small_options();
    options.type = type;
    if (type == at::kBFloat16) options.optimizer = AdamWOptions{.weight_decay = 0.01};
    clean();
    Cnn straight = net();
    const TrainResult whole = run(straight, options);
    // Steps 1-3 are the first epoch. Killed inside the second, killed between two, stopped inside.
    for (const int how : {0, 1, 2}) {
      clean();
      Cnn first = net();
      if (how == 2) {
        EXPECT_THROW(run(first, options, OutputPolicy::kFresh, StopBeforeStep(5)), Interrupted);
      } else {
        EXPECT_THROW(run(first, options, OutputPolicy::kFresh, DieBeforeStep(how == 0 ? 5 : 7)),
                     std::runtime_error);
      }
      Cnn second = Cnn::make(cnn_config("resnet8", 4), 77);  // other weights than the checkpoint's
      const TrainResult rest = run(second, options, OutputPolicy::kResume);
      EXPECT_EQ(rest.resumed_from, how == 0 ? 3 : how == 1 ? 6 : 5);
      EXPECT_EQ(rest.losses, whole.losses);
      expect_equal(second, straight);
    }
  }
}

TEST_F(TrainClassifier, DropoutResumesToo) {
  images_.pixels = at::constant_pad_nd(images_.pixels, {8, 8, 8, 8}, 90);  // VGG wants 32 x 32
  ClassifierOptions options = small_options();
  options.epochs = 1;
  Cnn straight = net("vgg16_bn");
  run(straight, options);
  clean();
  Cnn first = net("vgg16_bn");
  EXPECT_THROW(run(first, options, OutputPolicy::kFresh, StopBeforeStep(2)), Interrupted);
  Cnn second = net("vgg16_bn");
  run(second, options, OutputPolicy::kResume);
  expect_equal(second, straight);
}

TEST_F(TrainClassifier, BFloat16AndPlanesStayClose) {
  ClassifierOptions options = small_options();
  options.ema = 0;
  options.epochs = 1;
  Cnn exact = net(), planes = net(), half = net();
  const TrainResult a = run(exact, options);
  clean();
  options.channels_last = false;
  const TrainResult b = run(planes, options);
  clean();
  options.channels_last = true;
  options.type = at::kBFloat16;
  const TrainResult c = run(half, options);
  for (std::size_t i = 0; i < a.losses.size(); ++i) {
    EXPECT_NEAR(a.losses[i], b.losses[i], 1e-3) << i;
    EXPECT_NEAR(a.losses[i], c.losses[i], 0.1) << i;
  }
  // Masters, not their bfloat16 copies: most are no bfloat16 numbers.
  for (const NamedTensor& parameter : half.parameters()) {
    EXPECT_EQ(parameter.tensor.scalar_type(), at::kFloat) << parameter.name;
    if (parameter.name == "layer1.0.conv1.weight") {
      EXPECT_FALSE(at::equal(parameter.tensor, parameter.tensor.to(at::kBFloat16).to(at::kFloat)));
    }
  }
}

TEST_F(TrainClassifier, LeavesSharedStatisticsAlone) {
  const Cnn original = net();
  Cnn copy = original;  // shares its tensors
  const at::Tensor mean = original.buffers().front().tensor.clone();
  ClassifierOptions options = small_options();
  options.epochs = 1;
  run(copy, options);
  EXPECT_TRUE(at::equal(original.buffers().front().tensor, mean));
  EXPECT_FALSE(at::equal(copy.buffers().front().tensor, mean));
}

TEST_F(TrainClassifier, AnEdgeThatNobodyReadsHasNoGradient) {
  // Node 1 has a convolution, and no edge leads on from it.
  Cnn cell = net("|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|");
  ClassifierOptions options = small_options();
  options.epochs = 1;
  const TrainResult result = run(cell, options);
  EXPECT_GT(result.steps, 1);
  EXPECT_TRUE(std::isfinite(result.losses.back()));
}

TEST_F(TrainClassifier, ABadLossKeepsTheLastGoodCheckpoint) {
  ClassifierOptions options = small_options();
  options.lr = 1e30;
  options.ema = 0;
  options.warmup_epochs = 2;  // the first step has rate 0, the second breaks the weights
  options.checkpoint_epochs = 1;
  Cnn cnn = net();
  RunFolder folder = RunFolder::create(out_, OutputPolicy::kFresh, {});
  try {
    train_classifier(cnn, images_, options, folder, silent_reporter(), never_stop());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    const std::string text = error.what();
    EXPECT_NE(text.find("step 3: the "), std::string::npos) << text;
    EXPECT_EQ(error.hint_text(), "use a lower --lr, or check the weights with `espalier verify`");
  }
  EXPECT_FALSE(fs::exists(folder.run_dir() / "checkpoints"));
}

TEST_F(TrainClassifier, RefusesImagesThatTheNetCannotTake) {
  const auto message = [&](Cnn cnn) -> std::string {
    try {
      run(cnn, small_options());
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(Cnn::make(cnn_config("resnet8", 3), 1)),
            "images: 4 classes, but the net has 3 outputs");
  images_.pixels = images_.pixels.narrow(1, 0, 1).contiguous();
  EXPECT_EQ(message(net()), "images: 1 channels, but the net takes 3");
}

TEST_F(TrainClassifier, EstimateCountsWhatTheRunKeeps) {
  ClassifierOptions options = small_options();
  options.keep_best = true;
  const Cnn cnn = net();
  const at::Tensor before = cnn.parameters().front().tensor.clone();
  const ClassifierEstimate e = estimate_classifier(cnn, images_, options, silent_reporter());
  EXPECT_EQ(e.steps, 9);
  // 74,900 parameters: the masters, their momentum, the average; and gradients.
  EXPECT_EQ(e.weight_bytes, 74900 * 4 * 4);
  EXPECT_EQ(e.checkpoint_bytes, 74900 * 4 * 4);  // no gradients, but the best
  // Features of 16 x 16 images: 2 x 4096, 2048, 1024.
  EXPECT_EQ(e.activation_bytes, 4 * 11264 * 8 * 4);
  EXPECT_EQ(e.image_bytes, 22 * 3 * 16 * 16);
  EXPECT_GT(e.seconds, 0);
  EXPECT_EQ(e.peak_bytes(), e.weight_bytes + e.activation_bytes + e.image_bytes);
  EXPECT_TRUE(at::equal(cnn.parameters().front().tensor, before));
}

}  // namespace
}  // namespace espalier
