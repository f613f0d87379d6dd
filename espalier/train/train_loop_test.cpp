// A toy problem through the whole loop: stopping and resuming equals running through, bit by bit;
// bad numbers stop it.
#include "espalier/train/train_loop.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/random.h"

namespace espalier {
namespace {

namespace fs = std::filesystem;

class StopAfter : public StopToken {
 public:
  explicit StopAfter(const std::int64_t& counter, std::int64_t limit)
      : counter_(counter), limit_(limit) {}
  bool stop_requested() const override { return counter_ >= limit_; }

 private:
  const std::int64_t& counter_;
  std::int64_t limit_;
};

class Messages : public Reporter {
 public:
  void log(LogLevel, std::string_view message) override { lines.emplace_back(message); }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    return silent_reporter().phase(name, total, unit);
  }
  std::vector<std::string> lines;
};

/// Least squares on noisy targets: the gradient of step s is a pure function of s and the weights.
struct Toy {
  at::Tensor slot = at::linspace(-1, 1, 12).view({3, 4});
  std::vector<TrainedTensor> tensors{make_trained("w", slot)};
  std::int64_t calls = 0;
  std::int64_t poisoned_step = -1;

  StepFunction function() {
    return [this](std::int64_t step) {
      ++calls;
      RandomStream stream(1, "toy", 0, step);
      const at::Tensor target = at::full({3, 4}, stream.uniform());
      StepGradients out;
      const at::Tensor difference = tensors[0].master - target;
      out.loss = difference.square().mean().item<double>();
      if (step == poisoned_step) out.loss = std::numeric_limits<double>::quiet_NaN();
      out.gradients = {2 * difference / 12};
      out.tokens = 10;
      return out;
    };
  }
};

TrainOptions toy_options(std::int64_t steps) {
  TrainOptions options;
  options.schedule = {0.05, 2, steps, LrDecay::kCosine};
  options.checkpoint_every = 4;
  options.must_match = {{"data", "abc"}};
  options.may_change = {{"lr", "0.05"}};
  return options;
}

class TrainLoop : public ::testing::Test {
 protected:
  void SetUp() override {
    out_ = fs::path(::testing::TempDir()) / "espalier_train_loop_test";
    clean();
  }
  void TearDown() override { clean(); }
  void clean() {
    fs::remove_all(out_);
    fs::remove_all(out_.string() + ".partial");
  }
  RunFolder open(OutputPolicy policy) { return RunFolder::create(out_, policy, {}); }
  /// Values of the "step" column of metrics.csv.
  static std::vector<std::string> steps_of(const fs::path& run_dir) {
    std::ifstream in(run_dir / "metrics.csv");
    std::vector<std::string> steps;
    for (std::string line; std::getline(in, line);) steps.push_back(line.substr(0, line.find(',')));
    return steps;
  }
  fs::path out_;
};

TEST_F(TrainLoop, StoppingAndResumingEqualsRunningThrough) {
  Toy straight;
  TrainResult whole;
  {
    RunFolder run = open(OutputPolicy::kFresh);
    whole = train(straight.tensors, straight.function(), toy_options(10), run, silent_reporter(),
                  never_stop());
  }
  EXPECT_EQ(whole.steps, 10);
  EXPECT_EQ(whole.tokens, 100);
  clean();

  Toy first;
  {
    RunFolder run = open(OutputPolicy::kFresh);
    EXPECT_THROW(train(first.tensors, first.function(), toy_options(10), run, silent_reporter(),
                       StopAfter(first.calls, 5)),
                 Interrupted);
    EXPECT_EQ(steps_of(run.run_dir()).back(), "5");
  }
  Toy second;  // starts from other weights than the checkpoint's
  second.tensors[0].master.fill_(9);
  RunFolder run = open(OutputPolicy::kResume);
  Messages messages;
  std::int64_t prepared_at = -1;
  TrainOptions options = toy_options(10);
  options.prepare = [&](std::int64_t step) { prepared_at = step; };
  const TrainResult rest =
      train(second.tensors, second.function(), options, run, messages, never_stop());
  EXPECT_EQ(second.calls, 5);
  EXPECT_EQ(prepared_at, 5);
  EXPECT_EQ(rest.resumed_from, 5);
  EXPECT_TRUE(at::equal(second.tensors[0].master, straight.tensors[0].master));
  EXPECT_EQ(rest.losses, whole.losses);
  EXPECT_EQ(rest.rates, whole.rates);
  EXPECT_EQ(rest.tokens, whole.tokens);
  const std::vector<std::string> expected{"step", "1", "2", "3", "4", "5",
                                          "6",    "7", "8", "9", "10"};
  EXPECT_EQ(steps_of(run.run_dir()), expected);
}

TEST_F(TrainLoop, AKilledRunContinuesFromItsLastCheckpoint) {
  Toy straight;
  {
    RunFolder run = open(OutputPolicy::kFresh);
    train(straight.tensors, straight.function(), toy_options(10), run, silent_reporter(),
          never_stop());
  }
  clean();
  Toy killed;
  {
    RunFolder run = open(OutputPolicy::kFresh);
    killed.poisoned_step =
        6;  // an exception instead of a kill: leaves the checkpoint of step 4 and rows up to 6
    EXPECT_THROW(train(killed.tensors, killed.function(), toy_options(10), run, silent_reporter(),
                       never_stop()),
                 Error);
  }
  Toy resumed;
  RunFolder run = open(OutputPolicy::kResume);
  const TrainResult rest = train(resumed.tensors, resumed.function(), toy_options(10), run,
                                 silent_reporter(), never_stop());
  EXPECT_EQ(rest.resumed_from, 4);
  EXPECT_EQ(resumed.calls, 6);
  EXPECT_TRUE(at::equal(resumed.tensors[0].master, straight.tensors[0].master));
}

/// A toy with a running mean that each forward pass moves, as batch norm has.
struct ToyWithBuffer : Toy {
  at::Tensor mean = at::zeros({4}), count = at::zeros({}, at::kLong);

  StepFunction function() {
    return [this, inner = Toy::function()](std::int64_t step) {
      mean.mul_(0.9).add_(tensors[0].master.mean(0), 0.1);
      count.add_(1);
      return inner(step);
    };
  }
  TrainOptions options() const {
    TrainOptions o = toy_options(10);
    o.optimizer = SgdOptions{.momentum = 0.9, .nesterov = true, .weight_decay = 0.01};
    o.buffers = {{"mean", mean}, {"count", count}};
    o.ema = 0.5;
    o.evaluate = [this] { return Evaluation{mean.sum().item<double>(), {{"sum", 1.0}}}; };
    o.evaluate_every = 3;
    o.keep_best = false;
    o.unit = "images";
    return o;
  }
};

TEST_F(TrainLoop, BuffersAveragesAndMomentaResumeBitByBit) {
  ToyWithBuffer straight;
  TrainResult whole;
  {
    RunFolder run = open(OutputPolicy::kFresh);
    whole = train(straight.tensors, straight.function(), straight.options(), run, silent_reporter(),
                  never_stop());
    std::ifstream in(run.run_dir() / "metrics.csv");
    std::string header;
    std::getline(in, header);
    EXPECT_NE(header.find("images_per_second"), std::string::npos) << header;
  }
  // One checkpoint from within a step (of step 4), one from a stop request between two.
  for (const bool killed : {true, false}) {
    clean();
    ToyWithBuffer first;
    {
      RunFolder run = open(OutputPolicy::kFresh);
      if (killed) first.poisoned_step = 6;
      const StopAfter stop(first.calls, killed ? 100 : 6);
      EXPECT_ANY_THROW(
          train(first.tensors, first.function(), first.options(), run, silent_reporter(), stop));
    }
    ToyWithBuffer second;
    second.mean.fill_(7);
    RunFolder run = open(OutputPolicy::kResume);
    const TrainResult rest = train(second.tensors, second.function(), second.options(), run,
                                   silent_reporter(), never_stop());
    EXPECT_EQ(rest.resumed_from, killed ? 4 : 6);
    EXPECT_TRUE(at::equal(second.tensors[0].master, straight.tensors[0].master));
    EXPECT_TRUE(at::equal(second.mean, straight.mean));
    EXPECT_EQ(second.count.item<std::int64_t>(), 10);
    EXPECT_EQ(rest.evaluations, whole.evaluations);
  }
}

TEST_F(TrainLoop, TheAverageIsWhatStays) {
  ToyWithBuffer toy;
  std::vector<at::Tensor> masters;
  const StepFunction watched = [&, f = toy.function()](std::int64_t step) {
    if (step > 0) masters.push_back(toy.tensors[0].master.to(at::kDouble));
    return f(step);
  };
  const at::Tensor start = toy.tensors[0].master.to(at::kDouble);
  TrainOptions options = toy.options();
  options.schedule.steps = 4;
  at::Tensor last;
  options.evaluate = [&] {
    last = toy.tensors[0].master.to(at::kDouble);
    return Evaluation{};
  };
  RunFolder run = open(OutputPolicy::kFresh);
  train(toy.tensors, watched, options, run, silent_reporter(), never_stop());
  // The weights after step 4 are not seen from outside: what is averaged last follows from the
  // rest.
  at::Tensor average = start;
  for (const at::Tensor& master : masters) average = 0.5 * average + 0.5 * master;
  const at::Tensor final_weights = 2 * last - average;
  EXPECT_TRUE(at::equal(last, toy.tensors[0].master.to(at::kDouble)));
  // The rate of the last step is small: they lie close to the weights before it.
  EXPECT_LT((final_weights - masters.back()).abs().max().item<double>(), 0.05);
  EXPECT_GT((last - masters.back()).abs().max().item<double>(), 1e-4);
}

/// The toy as a step that stays on its device.
DeviceStep device_step(ToyWithBuffer& toy) {
  DeviceStep step;
  step.inputs = [&toy](std::int64_t number) {
    RandomStream stream(1, "toy", 0, number);
    const at::Tensor target = at::full({10, 1}, stream.uniform());  // ten items
    return std::vector<at::Tensor>{number == toy.poisoned_step ? target * NAN : target};
  };
  step.loss_and_gradients = [&toy](const std::vector<at::Tensor>& inputs) {
    ++toy.calls;
    toy.mean.mul_(0.9).add_(toy.tensors[0].master.mean(0), 0.1);
    toy.count.add_(1);
    const at::Tensor difference = toy.tensors[0].master - inputs[0][0];
    return std::vector<at::Tensor>{difference.square().mean(), 2 * difference / 12};
  };
  return step;
}

TEST_F(TrainLoop, ADeviceStepEqualsAStepOfGradients) {
  for (const bool adamw : {false, true}) {
    ToyWithBuffer plain, device;
    TrainOptions a = plain.options(), b = device.options();
    a.clip = b.clip = 0.05;
    if (adamw) a.optimizer = b.optimizer = AdamWOptions{.weight_decay = 0.1};
    TrainResult first, second;
    {
      RunFolder run = open(OutputPolicy::kFresh);
      first = train(plain.tensors, plain.function(), a, run, silent_reporter(), never_stop());
    }
    {
      RunFolder run = open(OutputPolicy::kFresh);
      second = train(device.tensors, device_step(device), b, run, silent_reporter(), never_stop());
    }
    EXPECT_TRUE(at::equal(plain.tensors[0].master, device.tensors[0].master));
    EXPECT_TRUE(at::equal(plain.mean, device.mean));
    EXPECT_EQ(second.rates, first.rates);
    EXPECT_EQ(second.evaluations, first.evaluations);
    EXPECT_EQ(second.tokens, first.tokens);
    for (std::size_t i = 0; i < first.losses.size(); ++i)
      EXPECT_NEAR(second.losses[i], first.losses[i], 1e-6);
  }
}

TEST_F(TrainLoop, DeviceStepsResumeBitByBitAndKeepGoodCheckpoints) {
  ToyWithBuffer straight;
  {
    RunFolder run = open(OutputPolicy::kFresh);
    train(straight.tensors, device_step(straight), straight.options(), run, silent_reporter(),
          never_stop());
  }
  clean();
  ToyWithBuffer first;
  {
    RunFolder run = open(OutputPolicy::kFresh);
    first.poisoned_step = 6;
    try {
      train(first.tensors, device_step(first), first.options(), run, silent_reporter(),
            never_stop());
      FAIL();
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "step 7: the loss is nan");
      EXPECT_EQ(error.hint_text(),
                "use a lower --lr; the checkpoint of step 4 is kept, --resume continues from it");
    }
  }
  ToyWithBuffer second;
  second.tensors[0].master.fill_(9);
  RunFolder run = open(OutputPolicy::kResume);
  const TrainResult rest = train(second.tensors, device_step(second), second.options(), run,
                                 silent_reporter(), never_stop());
  EXPECT_EQ(rest.resumed_from, 4);
  EXPECT_EQ(second.calls, 6);
  EXPECT_TRUE(at::equal(second.tensors[0].master, straight.tensors[0].master));
  EXPECT_TRUE(at::equal(second.mean, straight.mean));
}

TEST_F(TrainLoop, AStopDuringAnEvaluationSavesAndIsEvaluatedOnResuming) {
  Toy toy;
  TrainOptions options = toy_options(8);
  options.checkpoint_every = 0;
  options.evaluate_every = 3;
  std::int64_t evaluations = 0;
  options.evaluate = [&]() -> Evaluation {
    if (++evaluations == 2) throw Interrupted{};
    return {1.0 / static_cast<double>(evaluations), {}};
  };
  {
    RunFolder run = open(OutputPolicy::kFresh);
    try {
      train(toy.tensors, toy.function(), options, run, silent_reporter(), never_stop());
      FAIL();
    } catch (const Interrupted& stopped) {
      EXPECT_NE(stopped.saved.find("checkpoint of step 6 saved"), std::string::npos)
          << stopped.saved;
    }
  }
  RunFolder run = open(OutputPolicy::kResume);
  const TrainResult rest =
      train(toy.tensors, toy.function(), options, run, silent_reporter(), never_stop());
  ASSERT_EQ(rest.evaluations.size(), 3u);
  EXPECT_EQ(rest.evaluations[1].first, 6);
  EXPECT_EQ(rest.evaluations[2].first, 8);
}

TEST_F(TrainLoop, ABadLossStopsBeforeTheUpdateAndKeepsTheCheckpoint) {
  Toy toy;
  toy.poisoned_step = 6;
  at::Tensor before;
  RunFolder run = open(OutputPolicy::kFresh);
  StepFunction watched = [&, f = toy.function()](std::int64_t step) {
    before = toy.tensors[0].master.clone();
    return f(step);
  };
  try {
    train(toy.tensors, watched, toy_options(10), run, silent_reporter(), never_stop());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_STREQ(error.what(), "step 7: the loss is nan");
    EXPECT_EQ(error.hint_text(),
              "use a lower --lr; the checkpoint of step 4 is kept, --resume continues from it");
  }
  EXPECT_TRUE(at::equal(before, toy.tensors[0].master));
  EXPECT_TRUE(fs::exists(run.run_dir() / "checkpoints" / "step-00000004.safetensors"));
}

TEST_F(TrainLoop, WeightsThatGiveABadLossAreNeverACheckpoint) {
  Toy toy;
  toy.poisoned_step =
      4;  // the update of step 4 broke the weights, and a checkpoint was due after it
  RunFolder run = open(OutputPolicy::kFresh);
  try {
    train(toy.tensors, toy.function(), toy_options(10), run, silent_reporter(), never_stop());
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "step 5: the loss is nan");
    EXPECT_EQ(error.hint_text(), "use a lower --lr, or check the weights with `espalier verify`");
  }
  EXPECT_FALSE(fs::exists(run.run_dir() / "checkpoints"));
}

TEST_F(TrainLoop, ResumeRefusesOtherDataAndMentionsOtherRates) {
  Toy toy;
  {
    RunFolder run = open(OutputPolicy::kFresh);
    EXPECT_THROW(train(toy.tensors, toy.function(), toy_options(10), run, silent_reporter(),
                       StopAfter(toy.calls, 4)),
                 Interrupted);
  }
  RunFolder run = open(OutputPolicy::kResume);
  TrainOptions other = toy_options(10);
  other.must_match = {{"data", "xyz"}};
  try {
    train(toy.tensors, toy.function(), other, run, silent_reporter(), never_stop());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(error.message(), "data was abc in the checkpointed run and is xyz now");
    EXPECT_EQ(error.hint_text(),
              "repeat the command of the first run, or drop --resume to start afresh");
  }
  TrainOptions shorter = toy_options(3);
  EXPECT_THROW(train(toy.tensors, toy.function(), shorter, run, silent_reporter(), never_stop()),
               Error);
  TrainOptions faster = toy_options(10);
  faster.may_change = {{"lr", "0.1"}};
  Messages messages;
  train(toy.tensors, toy.function(), faster, run, messages, never_stop());
  ASSERT_FALSE(messages.lines.empty());
  EXPECT_EQ(messages.lines.front(), "lr was 0.05 in the checkpointed run and is 0.1 now");
}

}  // namespace
}  // namespace espalier
