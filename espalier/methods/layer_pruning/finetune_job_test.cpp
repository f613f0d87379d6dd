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
#include "espalier/models/decoder/adapters.h"
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
    job_.options.batch_size = 4;
    job_.options.steps = 25;
    job_.options.lr = 3e-3;
    job_.eval_text = folder_ / "held.txt";
    job_.eval_options.seq_len = 32;
    job_.command_line = "espalier finetune source --data train.txt --out out";
  }
  FinetuneData training_data() const {
    const TokenText text = load_token_text(folder_ / "train.txt", tokenizer_, silent_reporter());
    FinetuneData data;
    data.rows = rows_of_text(text, 32);
    data.path = text.path;
    data.sha256 = text.sha256;
    data.seq_len = 32;
    return data;
  }
  FinetuneOutcome run(Reporter& reporter = silent_reporter()) {
    const FinetuneData data = training_data();
    RunFolder folder = RunFolder::create(folder_ / "out", OutputPolicy::kFresh, {});
    const FinetuneOutcome outcome =
        run_finetune_job(job_, data, tokenizer_, folder, reporter, never_stop());
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
  const TrainingRows rows = training_data().rows;
  try {
    verify_finetuned(folder_ / "out", model, rows, rows_loss(model, rows), silent_reporter());
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
  TrainingRows rows;
  TrainingRow row;
  row.ids.assign(128, 1);
  row.labels = row.ids;
  for (int i = 0; i < 64; ++i) rows.add(row);
  const FinetuneEstimate e = estimate_finetune(config, options, rows, 538'000'000, at::kCPU);
  EXPECT_EQ(e.steps, 16);
  EXPECT_EQ(e.trainable_parameters, 38'932'416);  // 49152 x 576 + 576 + 3 x 3,540,096
  EXPECT_EQ(e.cache_bytes, 64 * 128 * 576 * 4);
  EXPECT_EQ(e.weights_bytes, (134'515'008 + 49152 * 576) * 4ll);
  options.epochs = 4;
  EXPECT_GT(estimate_finetune(config, options, rows, 538'000'000, at::kCPU).seconds, e.seconds);
  options.mode = TuneMode::kFull;
  const FinetuneEstimate full = estimate_finetune(config, options, rows, 538'000'000, at::kCPU);
  EXPECT_EQ(full.trainable_parameters, 134'515'008);
  EXPECT_EQ(full.cache_bytes, 0);
  EXPECT_GT(full.peak_bytes, e.peak_bytes);
  options.mode = TuneMode::kLora;
  options.adapter.targets.names = default_target_modules();
  const FinetuneEstimate lora = estimate_finetune(config, options, rows, 538'000'000, at::kCPU);
  EXPECT_EQ(lora.trainable_parameters, 2'442'240);  // what PEFT counts for r = 8
  EXPECT_LT(lora.seconds, full.seconds);
  const std::int64_t all_activations = lora.activation_bytes;
  options.gradient_checkpointing = true;
  EXPECT_LT(estimate_finetune(config, options, rows, 538'000'000, at::kCPU).activation_bytes,
            all_activations);
  options.mode = TuneMode::kQlora;
  EXPECT_LT(estimate_finetune(config, options, rows, 538'000'000, at::kCPU).weights_bytes,
            lora.weights_bytes / 2);
}

TEST_F(FinetuneJobTest, AdapterModesLeaveAnAdapterThatSaysWhatTheModelSaid) {
  const std::string before = sha256_file(folder_ / "source/model.safetensors");
  for (const TuneMode mode : {TuneMode::kLora, TuneMode::kQlora, TuneMode::kDora}) {
    job_.options.mode = mode;
    job_.options.lr = 1e-2;
    job_.options.adapter.rank = 4;
    job_.options.adapter.dora = mode == TuneMode::kDora;
    job_.options.adapter.targets.names = default_target_modules();
    job_.options.adapter.modules_to_save =
        mode == TuneMode::kLora ? std::vector<std::string>{"lm_head"} : std::vector<std::string>{};
    job_.init_adapter.reset();
    fs::remove_all(folder_ / "out");
    const FinetuneOutcome outcome = run();
    EXPECT_LT(outcome.after->perplexity, 0.9 * outcome.before->perplexity);
    EXPECT_TRUE(PeftFolder::is_one(folder_ / "out"));
    EXPECT_FALSE(fs::exists(folder_ / "out/model.safetensors"));
    if (mode == TuneMode::kQlora) continue;
    Decoder model = Decoder::load(folder_ / "source", at::kFloat, at::kCPU);
    load_adapters(model, PeftFolder::open(folder_ / "out"));
    TrainingRows probe;
    const TrainingRows rows = training_data().rows;
    for (std::int64_t i = 0; i < 4; ++i) probe.add(rows.row(i));
    EXPECT_EQ(rows_loss(model, probe), outcome.probe_loss);
    // Going on from it starts where it ended.
    fs::remove_all(folder_ / "first");
    fs::rename(folder_ / "out", folder_ / "first");
    job_.init_adapter = folder_ / "first";
    const FinetuneOutcome more = run();
    EXPECT_EQ(more.before->perplexity, outcome.after->perplexity);
  }
  EXPECT_EQ(sha256_file(folder_ / "source/model.safetensors"), before);
}

TEST_F(FinetuneJobTest, AnAdapterToGoOnFromMustFitTheMode) {
  job_.options.mode = TuneMode::kLora;
  job_.options.steps = 2;
  job_.options.adapter.targets.names = default_target_modules();
  run();
  fs::rename(folder_ / "out", folder_ / "first");
  job_.init_adapter = folder_ / "first";
  for (const TuneMode mode : {TuneMode::kDora, TuneMode::kFull}) {
    job_.options.mode = mode;
    try {
      run();
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_TRUE(std::string_view(error.what()).starts_with("--init-adapter: ")) << error.what();
    }
  }
}

}  // namespace
}  // namespace espalier::layer_pruning
