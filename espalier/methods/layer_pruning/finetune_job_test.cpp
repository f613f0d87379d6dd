// From model folder to model folder: what is written opens anywhere, says what the model in memory
// said, and leaves the frozen bytes alone.
#include "espalier/methods/layer_pruning/finetune_job.h"

#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/hf_folder.h"
#include "espalier/methods/layer_pruning/finetune_estimate.h"
#include "espalier/methods/layer_pruning/finetune_output.h"
#include "espalier/tensor/tensor_view.h"

#include "tests/support/tiny_model.h"

namespace espalier::layer_pruning {
namespace {

namespace fs = std::filesystem;
using testing_support::TemporaryFolder;
using testing_support::TinyDecoder;

/// Letters a-z, blank and newline, one token each.
Tokenizer letter_tokenizer() {
  Json vocab = Json::object();
  int id = 0;
  for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = id++;
  vocab["\u0120"] = id++;
  vocab["\u010a"] = id++;
  Json root;
  root["version"] = "1.0";
  root["added_tokens"] = Json::array();
  root["normalizer"] = nullptr;
  root["pre_tokenizer"] = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  root["decoder"] = {{"type", "ByteLevel"},
                     {"add_prefix_space", true},
                     {"trim_offsets", true},
                     {"use_regex", true}};
  root["post_processor"] = nullptr;
  root["model"] = {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}};
  return Tokenizer::from_json(root.dump());
}

std::string rhyme(int verses) {
  std::string text;
  for (int i = 0; i < verses; ++i)
    text += "the pear is trained against a wall\nand bears the more for being small\n";
  return text;
}

class Messages : public Reporter {
 public:
  void log(LogLevel, std::string_view message) override { lines.emplace_back(message); }
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t total,
                                       std::string_view unit) override {
    return silent_reporter().phase(name, total, unit);
  }
  bool has(std::string_view part) const {
    for (const std::string& line : lines) {
      if (line.find(part) != std::string::npos) return true;
    }
    return false;
  }
  std::vector<std::string> lines;
};

/// The same folder with its weights in bfloat16.
void to_bfloat16(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  const HfFolder folder = HfFolder::open(from);
  Json config = parse_json(folder.config_text(), "config.json");
  config["torch_dtype"] = "bfloat16";
  write_file_atomically(to / "config.json", dump_json(config));
  std::vector<TensorPlan> plan;
  for (const StoredTensor& t : folder.tensors()) plan.push_back({t.name, Dtype::kBF16, t.shape});
  SafetensorsWriter writer(to / "model.safetensors", plan);
  for (const StoredTensor& t : folder.tensors())
    writer.append(
        tensor_bytes(view_bytes(t.data, t.dtype, t.shape, t.file).to(at::kBFloat16).contiguous()));
  writer.finish();
}

class FinetuneJobTest : public ::testing::Test {
 protected:
  void SetUp() override {
    tiny_.vocab = 100;
    tiny_.tied = true;
    tiny_.write_folder(folder_ / "source");
    write_file_atomically(folder_ / "train.txt", rhyme(20));
    write_file_atomically(folder_ / "held.txt", rhyme(5));
    write_file_atomically(folder_ / "source/README.md",
                          "---\nlanguage: en\nlicense: mit\n---\n# source\n");
    job_.source = folder_ / "source";
    job_.options.last = 1;
    job_.options.seq_len = 32;
    job_.options.batch_size = 4;
    job_.options.steps = 25;
    job_.options.lr = 3e-3;
    job_.eval_text = folder_ / "held.txt";
    job_.eval_options.seq_len = 32;
    job_.command_line = "espalier finetune source --data train.txt --out out";
  }
  FinetuneOutcome run(Reporter& reporter = silent_reporter()) {
    const TokenText text = load_token_text(folder_ / "train.txt", tokenizer_, silent_reporter());
    RunFolder folder = RunFolder::create(folder_ / "out", OutputPolicy::kFresh, {});
    const FinetuneOutcome outcome =
        run_finetune_job(job_, text, tokenizer_, folder, reporter, never_stop());
    folder.publish();
    return outcome;
  }
  PerplexityResult score(const fs::path& model) {
    const TokenText held = load_token_text(folder_ / "held.txt", tokenizer_, silent_reporter());
    return perplexity(Decoder::load(model, job_.options.compute, at::kCPU), held, job_.eval_options,
                      0, silent_reporter());
  }
  TinyDecoder tiny_;
  TemporaryFolder folder_;
  Tokenizer tokenizer_ = letter_tokenizer();
  FinetuneJob job_;
};

TEST_F(FinetuneJobTest, WritesAFolderThatScoresAsTheModelInMemoryDid) {
  const FinetuneOutcome outcome = run();
  ASSERT_TRUE(outcome.before && outcome.after);
  EXPECT_LT(outcome.after->perplexity, 0.8 * outcome.before->perplexity);
  EXPECT_EQ(score(folder_ / "source").perplexity, outcome.before->perplexity);
  EXPECT_EQ(score(folder_ / "out").perplexity, outcome.after->perplexity);

  const HfFolder source = HfFolder::open(folder_ / "source"), out = HfFolder::open(folder_ / "out");
  EXPECT_EQ(parse_json(out.config_text(), "config.json")["tie_word_embeddings"], false);
  EXPECT_EQ(out.tensors().size(), source.tensors().size() + 1);
  for (const StoredTensor& before : source.tensors()) {
    const StoredTensor* after = out.find(before.name);
    ASSERT_NE(after, nullptr) << before.name;
    const bool same = before.data.size() == after->data.size() &&
                      std::memcmp(before.data.data(), after->data.data(), before.data.size()) == 0;
    const bool trained =
        before.name.starts_with("model.layers.3.") || before.name == "model.norm.weight";
    EXPECT_EQ(same, !trained) << before.name;
  }
  EXPECT_TRUE(fs::exists(folder_ / "out/generation_config.json"));
  EXPECT_FALSE(fs::exists(folder_ / "out/run/checkpoints"));
  EXPECT_FALSE(fs::exists(folder_ / "out/run/prefix_cache"));
}

TEST_F(FinetuneJobTest, CardAndReportCarryTheNumbers) {
  const FinetuneOutcome outcome = run();
  const std::string card = read_file(folder_ / "out/README.md"),
                    report = read_file(folder_ / "out/run/report.html");
  EXPECT_TRUE(
      card.starts_with("---\nbase_model: source\nlicense: mit\nlibrary_name: transformers\n"))
      << card;
  const std::string after =
      format("{:.4f} ± {:.4f}", outcome.after->perplexity, outcome.after->perplexity_stderr);
  for (const std::string& part :
       {after, std::string("the output head was untied"),
        std::string("output head, final norm and the last layer"), job_.command_line}) {
    EXPECT_NE(card.find(part), std::string::npos) << part << "\n" << card;
  }
  EXPECT_NE(card.find("held.txt: 10 x 32 tokens, no overlap, no BOS, float32"), std::string::npos)
      << card;
  for (const char* part : {"Training loss", "Learning rate", "perplexity after", "<svg"})
    EXPECT_NE(report.find(part), std::string::npos) << part;
}

TEST_F(FinetuneJobTest, BFloat16FoldersStayBFloat16AndTheNumbersAreThoseOfTheFile) {
  to_bfloat16(folder_ / "source", folder_ / "half");
  job_.source = folder_ / "half";
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    job_.options.compute = type;
    fs::remove_all(folder_ / "out");
    const FinetuneOutcome outcome = run();
    const HfFolder out = HfFolder::open(folder_ / "out");
    for (const StoredTensor& t : out.tensors()) EXPECT_EQ(t.dtype, Dtype::kBF16) << t.name;
    EXPECT_EQ(score(folder_ / "out").perplexity, outcome.after->perplexity);
  }
}

TEST_F(FinetuneJobTest, WarnsWhenItIsEvaluatedOnItsTrainingText) {
  Messages messages;
  job_.eval_text = folder_ / "train.txt";
  job_.options.steps = 2;
  run(messages);
  EXPECT_TRUE(messages.has("test leak"));
}

TEST_F(FinetuneJobTest, AModelThatDiffersFromTheFileIsCaught) {
  job_.options.steps = 2;
  run();
  const Decoder model = Decoder::load(folder_ / "source", at::kFloat, at::kCPU);
  const at::Tensor ids =
      cut_segments(load_token_text(folder_ / "train.txt", tokenizer_, silent_reporter()), 32, 4);
  try {
    verify_finetuned(folder_ / "out", model, ids, probe_loss(model, ids), silent_reporter());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInternal);
    EXPECT_NE(error.message().find("the written model's loss on a probe batch is"),
              std::string::npos);
  }
}

TEST(FinetuneEstimate, CountsParametersAndGrowsWithTheWork) {
  DecoderConfig config;  // SmolLM2-135M
  config.hidden_size = 576, config.intermediate_size = 1536, config.num_layers = 30,
  config.num_heads = 9, config.num_kv_heads = 3;
  config.head_dim = 64, config.vocab_size = 49152, config.tied_embeddings = true;
  FinetuneOptions options;
  options.epochs = 2;
  const FinetuneEstimate e = estimate_finetune(config, options, 64, 538'000'000, at::kCPU);
  EXPECT_EQ(e.steps, 16);
  EXPECT_EQ(e.trainable_parameters, 38'932'416);  // 49152 x 576 + 576 + 3 x 3,540,096
  EXPECT_EQ(e.cache_bytes, 64 * 128 * 576 * 4);
  EXPECT_EQ(e.weights_bytes, (134'515'008 + 49152 * 576) * 4ll);
  options.epochs = 4;
  EXPECT_GT(estimate_finetune(config, options, 64, 538'000'000, at::kCPU).seconds, e.seconds);
  options.mode = TuneMode::kFull;
  const FinetuneEstimate full = estimate_finetune(config, options, 64, 538'000'000, at::kCPU);
  EXPECT_EQ(full.trainable_parameters, 134'515'008);
  EXPECT_EQ(full.cache_bytes, 0);
  EXPECT_GT(full.peak_bytes, e.peak_bytes);
}

}  // namespace
}  // namespace espalier::layer_pruning
