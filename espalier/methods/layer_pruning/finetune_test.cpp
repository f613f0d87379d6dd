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
#include "espalier/train/adamw.h"

#include "tests/support/random_decoder.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;
using testing_support::random_decoder;
using testing_support::tiny_config;

constexpr std::int64_t kTokens = 16;

/// Rows with structure to learn: each token is mostly the one before plus three.
TokenText toy_text(std::int64_t rows) {
  TokenText text;
  text.path = "toy.txt";
  text.sha256 = "toy";
  RandomStream stream(11, "toy text");
  std::int64_t id = 5;
  for (std::int64_t i = 0; i < rows * kTokens; ++i) {
    id = stream.below(4) == 0 ? static_cast<std::int64_t>(stream.below(300)) : (id + 3) % 300;
    text.ids.push_back(static_cast<TokenId>(id));
  }
  return text;
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
  options.seq_len = kTokens;
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
    return finetune(model, text_, options, run, reporter, never_stop());
  }
  TokenText text_ = toy_text(18);
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
  const at::Tensor ids = cut_segments(text_, kTokens).index_select(0, at::tensor(rows, at::kLong));
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
      EXPECT_THROW(finetune(first_model, text_, options, run, silent_reporter(), stop),
                   Interrupted);
    }
    const fs::path partial = out_.string() + ".partial";
    EXPECT_EQ(fs::exists(partial / "run" / "prefix_cache" / "hidden.bin"),
              cache == PrefixCache::kAuto);
    Decoder second_model = random_decoder(tiny_config(3, true));
    RunFolder run = RunFolder::create(out_, OutputPolicy::kResume, {});
    Notes notes;
    const FinetuneResult rest = finetune(second_model, text_, options, run, notes, never_stop());
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
    EXPECT_THROW(finetune(first_model, text_, options, run, silent_reporter(), stop), Interrupted);
  }
  Decoder other = random_decoder(tiny_config(3, true), at::kFloat, /*seed=*/1);
  RunFolder run = RunFolder::create(out_, OutputPolicy::kResume, {});
  try {
    finetune(other, text_, options, run, silent_reporter(), never_stop());
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
  options.seq_len = 1000;
  options.micro_batch = 8;
  Decoder model = random_decoder(tiny_config(3, true));
  try {
    run_once(model, options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    for (const char* part :
         {"--last is 9, allowed is 0 to 3", "exactly one of --steps and --epochs", "--lr is 0",
          "--seq-len is 1000, the model's context is 512", "--micro-batch is 8"}) {
      EXPECT_NE(error.message().find(part), std::string::npos) << part << "\n" << error.message();
    }
  }
}

TEST_F(Finetune, ATextThatIsTooShortNamesBothCounts) {
  text_.ids.resize(10);
  Decoder model = random_decoder(tiny_config(3, true));
  try {
    run_once(model, toy_options(3));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_STREQ(error.what(), "toy.txt: holds 10 tokens, but 16 are needed (1 x 16 tokens)");
  }
}

TEST(PrefixCacheFile, AnotherKeyOrATruncatedFileStartsAnew) {
  const fs::path folder = fs::path(::testing::TempDir()) / "espalier_prefix_cache_test";
  fs::remove_all(folder);
  const HiddenStateFile::Shape shape{5, 3, 4, at::kFloat};
  const at::Tensor rows = at::arange(60, at::kFloat).view({5, 3, 4});
  {
    HiddenStateFile file(folder, "key", shape);
    file.append(rows.narrow(0, 0, 2));
    file.append(rows.narrow(0, 2, 3));
    EXPECT_TRUE(
        at::equal(file.read({4, 0, 4}), rows.index_select(0, at::tensor({4, 0, 4}, at::kLong))));
  }
  EXPECT_TRUE(HiddenStateFile::is_complete(folder, "key", shape));
  EXPECT_TRUE(at::equal(HiddenStateFile(folder, "key", shape).read({3}), rows.narrow(0, 3, 1)));
  EXPECT_FALSE(HiddenStateFile::is_complete(folder, "other", shape));
  fs::resize_file(folder / "hidden.bin", 17);
  EXPECT_FALSE(HiddenStateFile::is_complete(folder, "key", shape));
  EXPECT_EQ(HiddenStateFile(folder, "key", shape).rows_done(), 0);
  std::ofstream(folder / "hidden.json") << "{ broken";
  EXPECT_EQ(HiddenStateFile(folder, "key", shape).rows_done(), 0);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace espalier::layer_pruning
