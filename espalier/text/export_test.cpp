// Tokenizers through GGUF and back, and GGUF metadata that is broken. That transformers loads what
// is written is tests/parity/tokenizer_parity.py's matter.
#include "espalier/text/export.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <unistd.h>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/gguf.h"
#include "espalier/text/base64_internal.h"
#include "espalier/text/tokenizer.h"

namespace espalier {
namespace {

using Metadata = std::vector<std::pair<std::string, GgufValue>>;
using Ids = std::vector<TokenId>;

class Export : public testing::Test {
 protected:
  Export()
      : root_(std::filesystem::temp_directory_path() /
              ("espalier_export_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_ / "in");
    std::filesystem::create_directories(root_ / "out");
  }
  ~Export() override { std::filesystem::remove_all(root_); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(root_ / "in" / name, std::ios::binary) << text;
  }
  GgufFile write_gguf(const Metadata& tokenizer, const std::string& architecture = "llama") {
    Metadata metadata = {{"general.architecture", GgufValue::string(architecture)}};
    metadata.insert(metadata.end(), tokenizer.begin(), tokenizer.end());
    GgufWriter(root_ / "t.gguf", metadata, {}).finish();
    return GgufFile::open(root_ / "t.gguf");
  }
  static std::vector<std::string> lines() {
    const Json expected = read_json_file(testdata() / "expected.json");
    std::vector<std::string> out;
    for (const Json& line : expected.at("lines"))
      out.push_back(text::base64_decode(line.get<std::string>()));
    return out;
  }
  static std::filesystem::path testdata() {
    return std::filesystem::path(ESPALIER_SOURCE_DIR) / "espalier/text/testdata";
  }

  void expect_round_trip(std::int64_t rows, const std::string& architecture = "llama") {
    const Tokenizer original = Tokenizer::from_folder(root_ / "in");
    const GgufFile file =
        write_gguf(gguf_tokenizer_metadata(root_ / "in", rows, architecture), architecture);
    const Tokenizer from_gguf = Tokenizer::from_gguf(file);
    write_hf_tokenizer(file, root_ / "out");
    const Tokenizer written = Tokenizer::from_folder(root_ / "out");
    EXPECT_EQ(from_gguf.vocab_size(), rows);
    EXPECT_EQ(written.vocab_size(), rows);
    EXPECT_EQ(from_gguf.bos(), original.bos());
    EXPECT_EQ(written.eos(), original.eos());
    EXPECT_EQ(written.chat_template(), original.chat_template());
    for (const std::string& line : lines()) {
      const Ids ids = original.encode(line, {.add_special_tokens = true});
      EXPECT_EQ(from_gguf.encode(line, {.add_special_tokens = true}), ids) << line;
      EXPECT_EQ(written.encode(line, {.add_special_tokens = true}), ids) << line;
      EXPECT_EQ(written.decode(ids), original.decode(ids)) << line;
    }
  }
  template <class Action>
  void expect_error(ErrorKind kind, const std::string& says, Action action) {
    try {
      action();
      FAIL() << "no error that says " << says;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
    }
  }

  std::filesystem::path root_;
};

TEST_F(Export, ByteLevelKeepsItsIds) {
  Json tokenizer = parse_json(read_file(testdata() / "byte_level_bpe.json"), "fixture");
  for (Json& token :
       tokenizer["added_tokens"]) {  // GGUF cannot say more of a token than its text and kind
    token["lstrip"] = token["rstrip"] = token["single_word"] = token["normalized"] = false;
  }
  write("tokenizer.json", tokenizer.dump());
  write("tokenizer_config.json",
        R"({"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ 1 }}"})");
  const auto rows = Tokenizer::from_folder(root_ / "in").vocab_size();
  expect_round_trip(rows);
  expect_round_trip(rows + 5);
  const GgufFile file = GgufFile::open(root_ / "t.gguf");
  EXPECT_EQ(file.get_string("tokenizer.ggml.pre"), "qwen2");
  EXPECT_EQ(file.get_strings("tokenizer.ggml.tokens")->back(),
            "[PAD" + std::to_string(rows + 4) + "]");
  EXPECT_EQ(file.get_ints("tokenizer.ggml.token_type")->back(), 5) << "unused";
  expect_error(ErrorKind::kInput, "embedding has 3 rows",
               [&] { gguf_tokenizer_metadata(root_ / "in", 3); });
}

TEST_F(Export, SentencePieceKeepsItsIds) {
  write("tokenizer.model", read_file(testdata() / "spm_bpe.model"));
  expect_round_trip(Tokenizer::from_folder(root_ / "in").vocab_size() + 2);
}

/// A tokenizer.json as gemma's: bytes as a last resort, spaces as U+2581, cut at them. The ids of
/// merged pieces follow the merges, or run against them.
Json gemma_tokenizer(bool in_order) {
  Json vocab = Json::object(), merges = Json::array(), added = Json::array();
  int id = 0;
  for (const char* special : {"<pad>", "<eos>", "<bos>", "<unk>"}) {
    vocab[special] = id;
    added.push_back({{"id", id++},
                     {"content", special},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  for (int byte = 0; byte < 256; ++byte) vocab[format("<0x{:02X}>", byte)] = id++;
  const std::string space = "\xE2\x96\x81";
  std::vector<std::pair<std::string, std::string>> pairs{
      {"h", "e"}, {"i", "n"}, {"t", "he"}, {space, "the"}, {"a", "t"}, {space, space}, {"in", "g"}};
  for (const auto& [left, right] : pairs) merges.push_back({left, right});
  if (!in_order) std::reverse(pairs.begin(), pairs.end());
  for (const auto& [left, right] : pairs) vocab[left + right] = id++;
  for (char letter = 'a'; letter <= 'z'; ++letter) vocab[std::string(1, letter)] = id++;
  vocab[space] = id++;
  const Json to_space = {{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}};
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}}},
          {"pre_tokenizer",
           {{"type", "Split"},
            {"pattern", {{"String", " "}}},
            {"behavior", "MergedWithPrevious"},
            {"invert", false}}},
          {"post_processor", nullptr},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders", {to_space, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", merges}}}};
}

TEST_F(Export, GemmaKeepsItsIdsWhateverTheirOrder) {
  for (const bool in_order : {true, false}) {
    write("tokenizer.json", gemma_tokenizer(in_order).dump());
    write("tokenizer_config.json", R"({"bos_token": "<bos>", "eos_token": "<eos>",
        "unk_token": "<unk>", "pad_token": "<pad>", "add_bos_token": false})");
    expect_round_trip(Tokenizer::from_folder(root_ / "in").vocab_size(), "gemma2");
    const GgufFile file = GgufFile::open(root_ / "t.gguf");
    EXPECT_EQ(file.find("tokenizer.ggml.merges") == nullptr, in_order)
        << "a list where the ids do not say it";
  }
}

TEST_F(Export, WhatGgufCannotSayIsRefused) {
  write(
      "tokenizer.json",
      R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, {"type": "ByteLevel"}]},
      "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})");
  expect_error(ErrorKind::kUnsupported, "no name for the way",
               [&] { gguf_tokenizer_metadata(root_ / "in", 1); });
  write("tokenizer.json", R"({"model": {"type": "Unigram", "vocab": [["a", 0]]}})");
  expect_error(ErrorKind::kUnsupported, "unigram",
               [&] { gguf_tokenizer_metadata(root_ / "in", 1); });
}

Metadata small(std::string pre) {
  return {{"tokenizer.ggml.model", GgufValue::string("gpt2")},
          {"tokenizer.ggml.pre", GgufValue::string(std::move(pre))},
          {"tokenizer.ggml.tokens", GgufValue::strings({"a", "1", "<|x|>", "aa", "2", "12", "Ġ"})},
          {"tokenizer.ggml.merges", GgufValue::strings({"a a", "1 2"})},
          {"tokenizer.ggml.token_type",
           GgufValue::i32s(std::vector<std::int32_t>{1, 1, 3, 1, 1, 1, 1})}};
}

TEST_F(Export, GgufPreTokenizersSplitAsNamed) {
  EXPECT_EQ(Tokenizer::from_gguf(write_gguf(small("gpt-2"))).encode("aa12<|x|>"), (Ids{3, 5, 2}));
  EXPECT_EQ(Tokenizer::from_gguf(write_gguf(small("smollm"))).encode("aa12"), (Ids{3, 1, 4}))
      << "every digit alone";
  EXPECT_EQ(Tokenizer::from_gguf(write_gguf(small("qwen2"))).encode("12"), (Ids{1, 4}));
  EXPECT_EQ(Tokenizer::from_gguf(write_gguf(small("llama-bpe"))).encode("12"), (Ids{5}))
      << "up to three digits";
}

TEST_F(Export, BrokenGgufMetadataIsRefused) {
  const auto open = [&](Metadata metadata) { Tokenizer::from_gguf(write_gguf(metadata)); };
  expect_error(ErrorKind::kUnsupported, "smollm", [&] { open(small("no-such-splitter")); });
  expect_error(ErrorKind::kInput, "tokenizer.ggml.tokens", [&] { open({}); });
  Metadata metadata = small("gpt-2");
  metadata[3].second = GgufValue::strings({"a zzz"});
  expect_error(ErrorKind::kInput, "merge 0", [&] { open(metadata); });
  metadata = small("gpt-2");
  metadata[4].second = GgufValue::i32s(std::vector<std::int32_t>{1});
  expect_error(ErrorKind::kInput, "7 tokens, but 1 token types", [&] { open(metadata); });
  metadata = small("gpt-2");
  metadata.emplace_back("tokenizer.ggml.eos_token_id", GgufValue::u32(99));
  expect_error(ErrorKind::kInput, "eos_token_id is 99", [&] { open(metadata); });
  metadata[0].second = GgufValue::string("bert");
  expect_error(ErrorKind::kUnsupported, "bert", [&] { open(metadata); });
}

}  // namespace
}  // namespace espalier
