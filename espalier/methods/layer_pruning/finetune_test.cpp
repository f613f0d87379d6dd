// Training a tiny decoder: gradients against plain autograd, exact accumulation, the cache changes
// no bit, and stopping and resuming equals running through.
#include "espalier/methods/layer_pruning/finetune.h"

#include <cmath>
#include <fstream>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include "espalier/base/error.h"
#include "espalier/base/random.h"
#include "espalier/data/row_order.h"
#include "espalier/methods/layer_pruning/prefix_cache.h"
#include "espalier/methods/layer_pruning/tuning_step.h"
#include "espalier/models/decoder/adapters.h"
#include "espalier/train/adamw.h"

#include "tests/support/random_decoder.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;
using testing_support::random_decoder;
using testing_support::tiny_config;

constexpr std::int64_t kTokens = 16;

/// Rows with structure to learn: each token is mostly the one before plus three. Ragged ones are
/// 5 to 16 tokens long and have a prompt that is not predicted.
enum class Shape : std::uint8_t { kEqual, kRagged };
TrainingRows toy_rows(std::int64_t count, Shape shape = Shape::kEqual) {
  TrainingRows rows;
  RandomStream stream(11, "toy text");
  std::int64_t id = 5;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t length =
        shape == Shape::kEqual ? kTokens : 5 + static_cast<std::int64_t>(stream.below(12));
    TrainingRow row;
    for (std::int64_t t = 0; t < length; ++t) {
      id = stream.below(4) == 0 ? static_cast<std::int64_t>(stream.below(300)) : (id + 3) % 300;
      row.ids.push_back(static_cast<TokenId>(id));
      row.labels.push_back(shape == Shape::kRagged && t < 3 ? kIgnoredLabel : row.ids.back());
    }
    rows.add(std::move(row));
  }
  return rows;
}

at::Tensor ids_of(const TrainingRows& rows, const std::vector<std::int64_t>& indices) {
  return pack_rows(rows, indices).ids.view({static_cast<std::int64_t>(indices.size()), -1});
}

class StopAtRow : public StopToken {  // asks for a stop once metrics.csv has `rows` data rows
 public:
  StopAtRow(fs::path csv, int rows) : csv_(std::move(csv)), rows_(rows) {}
  bool stop_requested() const override {
    std::ifstream in(csv_);
    int lines = -1;
    for (std::string line; std::getline(in, line);) ++lines;
    return lines >= rows_;
  }

 private:
  fs::path csv_;
  int rows_;
};

class Notes : public Reporter {
 public:
  void log(LogLevel, std::string_view message) override { lines.emplace_back(message); }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    phases.emplace_back(name);
    return silent_reporter().phase(name, total, unit);
  }
  std::vector<std::string> lines, phases;
};

FinetuneOptions toy_options(std::int64_t steps) {
  FinetuneOptions options;
  options.last = 1;
  options.batch_size = 4;
  options.steps = steps;
  options.lr = 1e-3;
  options.warmup = 2;
  options.checkpoint_every = 3;
  options.seed = 5;
  return options;
}

class Finetune : public ::testing::Test {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    out_ = fs::path(::testing::TempDir()) / "espalier_finetune_test";
    clean();
  }
  void TearDown() override { clean(); }
  void clean() {
    fs::remove_all(out_);
    fs::remove_all(out_.string() + ".partial");
  }
  FinetuneResult run_once(Decoder& model, const FinetuneOptions& options,
                          Reporter& reporter = silent_reporter()) {
    clean();
    RunFolder run = RunFolder::create(out_, OutputPolicy::kFresh, {});
    return finetune(model, rows_, options, run, reporter, never_stop());
  }
  TrainingRows rows_ = toy_rows(18);
  fs::path out_;
};

void expect_same(const FinetuneResult& a, const FinetuneResult& b) {
  EXPECT_EQ(a.losses, b.losses);
  ASSERT_EQ(a.trained.size(), b.trained.size());
  for (const auto& [name, tensor] : a.trained)
    EXPECT_TRUE(at::equal(tensor, b.trained.at(name))) << name;
}

TEST_F(Finetune, NamesOfWhatTrains) {
  Decoder tied = random_decoder(tiny_config(3, true));
  EXPECT_EQ(trained_names(tied, TuneMode::kPartial, 0),
            (std::vector<std::string>{"model.norm.weight", "lm_head.weight"}));
  const std::vector<std::string> last = trained_names(tied, TuneMode::kPartial, 1);
  EXPECT_EQ(last.size(), 11u);
  EXPECT_EQ(last.front(), "model.layers.2.input_layernorm.weight");
  EXPECT_EQ(trained_names(tied, TuneMode::kFull, 0).size(), 1u + 3 * 9 + 1);  // the tie stays
  try {
    trained_names(tied, TuneMode::kPartial, 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "--last: is 4, allowed is 0 to 3 (the model's layers)");
  }
}

TEST_F(Finetune, AStepIsPlainAutogradAndAdamW) {
  FinetuneOptions options = toy_options(1);
  options.warmup = 0;
  options.clip = 0;
  Decoder model = random_decoder(tiny_config(3, false));
  Decoder plain = random_decoder(tiny_config(3, false));
  const FinetuneResult result = run_once(model, options);

  std::vector<at::Tensor> weights;
  std::vector<std::string> names = trained_names(plain, TuneMode::kPartial, 1);
  plain.for_each_parameter([&](const std::string& name, at::Tensor& slot) {
    if (std::find(names.begin(), names.end(), name) == names.end()) return;
    slot = slot.clone().set_requires_grad(true);
    weights.push_back(slot);
  });
  const std::vector<std::int64_t> rows = RowOrder(18, 4, 5).batch(0);
  const at::Tensor ids = ids_of(rows_, rows);
  const at::Tensor logits = plain.forward(ids).narrow(1, 0, kTokens - 1);
  const at::Tensor loss = at::cross_entropy_loss(logits.reshape({-1, 300}),
                                                 ids.narrow(1, 1, kTokens - 1).reshape({-1}));
  EXPECT_NEAR(result.loss_first, loss.item<double>(), 1e-5);
  const std::vector<at::Tensor> gradients = torch::autograd::grad({loss}, weights);
  std::vector<at::Tensor> masters;
  for (at::Tensor& w : weights) masters.push_back(w.detach());
  AdamW(masters, {}).step(gradients, options.lr);
  for (std::size_t i = 0; i < names.size(); ++i) {
    // Adam's first step is lr * sign(g) wherever |g| >> eps: compare where the gradient is not
    // rounding noise.
    const at::Tensor sure = gradients[i].abs() > 1e-6;
    const at::Tensor difference =
        (masters[i] - result.trained.at(names[i])).abs().masked_select(sure);
    EXPECT_LT(difference.numel() ? difference.max().item<double>() : 0, 2e-5) << names[i];
  }
  EXPECT_EQ(result.tokens, 4 * kTokens);
  EXPECT_EQ(result.rows, 18);
}

TEST_F(Finetune, TheLossOfABatchDoesNotDependOnItsMicroBatches) {
  FinetuneOptions options = toy_options(6);  // batches of 4, 4, 4, 4, 2 rows
  Decoder whole = random_decoder(tiny_config(3, false));
  const FinetuneResult a = run_once(whole, options);
  for (const std::int64_t micro : {1, 3}) {
    options.micro_batch = micro;
    Decoder split = random_decoder(tiny_config(3, false));
    const FinetuneResult b = run_once(split, options);
    for (std::size_t i = 0; i < a.losses.size(); ++i)
      EXPECT_NEAR(a.losses[i], b.losses[i], 2e-5) << "micro " << micro << ", step " << i;
  }
}

TEST_F(Finetune, LearnsAndFreezesTheRest) {
  for (const TuneMode mode : {TuneMode::kPartial, TuneMode::kFull}) {
    FinetuneOptions options = toy_options(30);
    options.mode = mode;
    options.lr = 3e-3;
    Decoder model = random_decoder(tiny_config(3, true));
    const Decoder before = random_decoder(tiny_config(3, true));
    Notes notes;
    const FinetuneResult result = run_once(model, options, notes);
    EXPECT_LT(result.loss_last, result.loss_first - 0.5);
    const bool partial = mode == TuneMode::kPartial;
    EXPECT_EQ(model.config().tied_embeddings, !partial);
    EXPECT_EQ(result.untied_bytes, partial ? 300u * 64 * 4 : 0u);
    EXPECT_EQ(at::equal(model.embedding().detach(), Decoder(before).embedding()), partial);
    EXPECT_EQ(at::equal(model.block(1).mlp.up_proj.weight, before.block(1).mlp.up_proj.weight),
              partial);
    EXPECT_FALSE(at::equal(model.block(2).mlp.up_proj.weight, before.block(2).mlp.up_proj.weight));
    EXPECT_FALSE(model.block(2).mlp.up_proj.weight.requires_grad());
    const std::string said = notes.lines.empty() ? "" : notes.lines.front();
    EXPECT_EQ(said.find("a [300, 64] lm_head.weight of 75.0 KiB is added") != std::string::npos,
              partial)
        << said;
    EXPECT_FALSE(fs::exists(fs::path(out_.string() + ".partial") / "run" / "prefix_cache"));
  }
}

TEST_F(Finetune, ThePrefixCacheChangesNoBit) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    FinetuneOptions options = toy_options(20);  // four epochs of five steps
    options.compute = type;
    Decoder cached_model = random_decoder(tiny_config(4, true), type),
            plain_model = random_decoder(tiny_config(4, true), type);
    const FinetuneResult cached = run_once(cached_model, options);
    options.prefix_cache = PrefixCache::kOff;
    const FinetuneResult plain = run_once(plain_model, options);
    EXPECT_EQ(cached.prefix_cache_bytes, 18u * kTokens * 64 * (type == at::kFloat ? 4 : 2));
    EXPECT_EQ(plain.prefix_cache_bytes, 0u);
    ASSERT_EQ(cached.losses.size(), 20u);
    expect_same(cached, plain);
  }
}

TEST_F(Finetune, OnePassOverTheDataUsesNoCache) {
  FinetuneOptions options = toy_options(0);
  options.epochs = 1;
  Decoder model = random_decoder(tiny_config(3, false));
  const FinetuneResult result = run_once(model, options);
  EXPECT_EQ(result.steps, 5);
  EXPECT_EQ(result.tokens, 18 * kTokens);
  EXPECT_EQ(result.prefix_cache_bytes, 0u);
}

TEST_F(Finetune, StoppedAndResumedEqualsStraightThrough) {
  for (const PrefixCache cache : {PrefixCache::kAuto, PrefixCache::kOff}) {
    FinetuneOptions options = toy_options(10);
    options.prefix_cache = cache;
    Decoder straight_model = random_decoder(tiny_config(3, true));
    const FinetuneResult straight = run_once(straight_model, options);
    clean();
    Decoder first_model = random_decoder(tiny_config(3, true));
    {
      RunFolder run = RunFolder::create(out_, OutputPolicy::kFresh, {});
      const StopAtRow stop(run.run_dir() / "metrics.csv", 5);
      EXPECT_THROW(finetune(first_model, rows_, options, run, silent_reporter(), stop),
                   Interrupted);
    }
    const fs::path partial = out_.string() + ".partial";
    EXPECT_EQ(fs::exists(partial / "run" / "prefix_cache" / "hidden.bin"),
              cache == PrefixCache::kAuto);
    Decoder second_model = random_decoder(tiny_config(3, true));
    RunFolder run = RunFolder::create(out_, OutputPolicy::kResume, {});
    Notes notes;
    const FinetuneResult rest = finetune(second_model, rows_, options, run, notes, never_stop());
    EXPECT_EQ(rest.resumed_from, 5);
    expect_same(rest, straight);
    // The rows were cached by the first process: the second one computes none.
    EXPECT_EQ(std::count(notes.phases.begin(), notes.phases.end(), "frozen layers, once"), 0);
  }
}

TEST_F(Finetune, RefusesToResumeWithOtherFrozenWeights) {
  FinetuneOptions options = toy_options(10);
  Decoder first_model = random_decoder(tiny_config(3, true));
  {
    RunFolder run = RunFolder::create(out_, OutputPolicy::kFresh, {});
    const StopAtRow stop(run.run_dir() / "metrics.csv", 4);
    EXPECT_THROW(finetune(first_model, rows_, options, run, silent_reporter(), stop), Interrupted);
  }
  Decoder other = random_decoder(tiny_config(3, true), at::kFloat, /*seed=*/1);
  RunFolder run = RunFolder::create(out_, OutputPolicy::kResume, {});
  try {
    finetune(other, rows_, options, run, silent_reporter(), never_stop());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(error.message().find("frozen weights was"), std::string::npos);
  }
}

TEST_F(Finetune, RefusesBadOptionsTogether) {
  FinetuneOptions options = toy_options(10);
  options.epochs = 2;
  options.last = 9;
  options.lr = 0;
  options.micro_batch = 8;
  Decoder model = random_decoder(tiny_config(3, true));
  try {
    run_once(model, options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    for (const char* part :
         {"--last is 9, allowed is 0 to 3", "exactly one of --steps and --epochs", "--lr is 0",
          "--micro-batch is 8"}) {
      EXPECT_NE(error.message().find(part), std::string::npos) << part << "\n" << error.message();
    }
  }
}

TEST_F(Finetune, RowsMustFitTheModel) {
  TrainingRow row;
  row.ids.assign(600, 299);
  row.ids[7] = 300;
  row.labels = row.ids;
  rows_ = {};
  rows_.add(row);
  Decoder model = random_decoder(tiny_config(3, true));
  try {
    run_once(model, toy_options(3));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(error.message().find("the longest has 600 tokens, the model's context is 512"),
              std::string::npos)
        << error.message();
  }
  row.ids.resize(9);
  row.labels = row.ids;
  rows_ = {};
  rows_.add(row);
  try {
    run_once(model, toy_options(3));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("row 1 holds token id 300, the model's vocabulary has 300"),
              std::string::npos)
        << error.message();
  }
}

/// The modes that train adapters, with everything that makes a difference turned on.
FinetuneOptions adapter_options(TuneMode mode, std::int64_t steps) {
  FinetuneOptions options = toy_options(steps);
  options.mode = mode;
  options.lr = 1e-2;
  options.adapter.rank = 4;
  options.adapter.alpha = 8;
  options.adapter.dropout = 0.1;
  options.adapter.dora = mode == TuneMode::kDora;
  options.adapter.targets.names = default_target_modules();
  return options;
}

Decoder base_of(TuneMode mode) {
  Decoder model = random_decoder(tiny_config(3, true));
  if (mode == TuneMode::kQlora) quantize_nf4(model, {}, silent_reporter());
  return model;
}

constexpr TuneMode kAdapterModes[] = {TuneMode::kLora, TuneMode::kQlora, TuneMode::kDora};

TEST_F(Finetune, AdaptersLearnAndTheBaseStays) {
  rows_ = toy_rows(18, Shape::kRagged);
  for (const TuneMode mode : kAdapterModes) {
    const FinetuneOptions options = adapter_options(mode, 40);
    Decoder model = base_of(mode);
    const std::string before = frozen_digest(model, 3);
    const FinetuneResult result = run_once(model, options);
    EXPECT_LT(result.loss_last, result.loss_first - 0.3) << tune_mode_name(mode);
    EXPECT_EQ(frozen_digest(model, 3), before) << tune_mode_name(mode);
    EXPECT_EQ(result.trained.size(), 3u * 7 * (mode == TuneMode::kDora ? 3 : 2));
    for (const auto& [name, tensor] : result.trained) {
      EXPECT_EQ(tensor.scalar_type(), at::kFloat);
      EXPECT_TRUE(name.find(".lora_") != std::string::npos) << name;
    }
  }
}

TEST_F(Finetune, EveryModeResumesBitForBit) {
  rows_ = toy_rows(18, Shape::kRagged);
  for (const TuneMode mode :
       {TuneMode::kPartial, TuneMode::kFull, TuneMode::kLora, TuneMode::kQlora, TuneMode::kDora}) {
    FinetuneOptions options = adapter_options(mode, 8);
    options.micro_batch = 3;
    Decoder straight_model = base_of(mode);
    const FinetuneResult straight = run_once(straight_model, options);
    clean();
    Decoder first_model = base_of(mode);
    {
      RunFolder run = RunFolder::create(out_, OutputPolicy::kFresh, {});
      const StopAtRow stop(run.run_dir() / "metrics.csv", 4);
      EXPECT_THROW(finetune(first_model, rows_, options, run, silent_reporter(), stop),
                   Interrupted);
    }
    Decoder second_model = base_of(mode);
    RunFolder run = RunFolder::create(out_, OutputPolicy::kResume, {});
    const FinetuneResult rest =
        finetune(second_model, rows_, options, run, silent_reporter(), never_stop());
    EXPECT_EQ(rest.resumed_from, 4) << tune_mode_name(mode);
    expect_same(rest, straight);
  }
}

TEST_F(Finetune, CheckpointedLayersGiveTheSameGradients) {
  rows_ = toy_rows(18, Shape::kRagged);
  for (const TuneMode mode :
       {TuneMode::kPartial, TuneMode::kFull, TuneMode::kLora, TuneMode::kDora}) {
    for (const bool tied : {false, true}) {
      FinetuneOptions options = adapter_options(mode, 6);
      Decoder plain_model = random_decoder(tiny_config(3, tied)),
              recomputed_model = random_decoder(tiny_config(3, tied));
      const FinetuneResult plain = run_once(plain_model, options);
      options.gradient_checkpointing = true;
      const FinetuneResult recomputed = run_once(recomputed_model, options);
      for (std::size_t i = 0; i < plain.losses.size(); ++i)
        EXPECT_NEAR(plain.losses[i], recomputed.losses[i], 1e-5) << tune_mode_name(mode) << i;
      for (const auto& [name, tensor] : plain.trained) {
        EXPECT_TRUE(at::allclose(tensor, recomputed.trained.at(name), 1e-3, 1e-4))
            << tune_mode_name(mode) << " " << name;
      }
    }
  }
}

TEST_F(Finetune, RaggedRowsPackedOrPaddedGiveTheSameLoss) {
  const TrainingRows rows = toy_rows(7, Shape::kRagged);
  const std::vector<std::int64_t> all{0, 1, 2, 3, 4, 5, 6};
  const TuningBatch packed = make_tuning_batch(rows, all, BatchForm::kPacked),
                    padded = make_tuning_batch(rows, all, BatchForm::kPadded);
  EXPECT_TRUE(packed.packed);
  EXPECT_EQ(packed.predicted, padded.predicted);
  EXPECT_EQ(padded.width(), 64);
  FinetuneOptions options = adapter_options(TuneMode::kLora, 1);
  options.adapter.dropout = 0;
  Decoder model = random_decoder(tiny_config(3, true));
  const Trainable trainable = make_trainable(model, options, nullptr, silent_reporter());
  TuningStep step(model, trainable, options, silent_reporter());
  const MicroGradients a = step.gradients(packed, 0.1, {}, 0),
                       b = step.gradients(padded, 0.1, {}, 0);
  EXPECT_NEAR(a.loss.item<double>(), b.loss.item<double>(), 1e-5);
  for (std::size_t i = 0; i < a.gradients.size(); ++i)
    EXPECT_TRUE(at::allclose(a.gradients[i], b.gradients[i], 1e-4, 1e-6)) << i;
  // The prefix in either form, and back.
  const at::Tensor states = at::randn({packed.tokens(), 8});
  EXPECT_TRUE(at::equal(take_rows(packed, place_rows(packed, states)), states));
  EXPECT_TRUE(at::equal(take_rows(padded, place_rows(padded, states)), states));
}

TEST_F(Finetune, RaggedRowsUseTheCacheToo) {
  rows_ = toy_rows(18, Shape::kRagged);
  FinetuneOptions options = toy_options(20);
  Decoder cached_model = random_decoder(tiny_config(4, true)),
          plain_model = random_decoder(tiny_config(4, true));
  const FinetuneResult cached = run_once(cached_model, options);
  options.prefix_cache = PrefixCache::kOff;
  const FinetuneResult plain = run_once(plain_model, options);
  EXPECT_EQ(cached.prefix_cache_bytes, static_cast<std::uint64_t>(rows_.tokens()) * 64 * 4);
  expect_same(cached, plain);
}

TEST_F(Finetune, TheBestHeldOutTensorsStay) {
  // Held-out rows of noise: the longer the training, the worse.
  TrainingRows held_out;
  RandomStream stream(3, "noise");
  TrainingRow row;
  for (int i = 0; i < 40; ++i) row.ids.push_back(static_cast<TokenId>(stream.below(300)));
  row.labels = row.ids;
  held_out.add(row);
  FinetuneOptions options = toy_options(12);
  options.mode = TuneMode::kFull;
  options.lr = 2e-2;
  options.eval_every = 3;
  clean();
  Decoder model = random_decoder(tiny_config(3, false));
  RunFolder run = RunFolder::create(out_, OutputPolicy::kFresh, {});
  const FinetuneResult result =
      finetune(model, rows_, options, run, silent_reporter(), never_stop(), nullptr, &held_out);
  ASSERT_EQ(result.held_out.size(), 4u);
  EXPECT_EQ(result.held_out.back().first, 12);
  double lowest = 1e9;
  for (const auto& [at_step, loss] : result.held_out) lowest = std::min(lowest, loss);
  EXPECT_LT(result.best_step, 12);
  EXPECT_NEAR(rows_loss(model, held_out), lowest, 1e-6);
}

}  // namespace
}  // namespace espalier::layer_pruning
