// Text in pieces equals text in one call; an early stop equals the beginning of the whole; errors
// name both counts.
#include "espalier/data/token_segments.h"

#include <cstdlib>
#include <fstream>
#include <memory>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/base/hash.h"
#include "espalier/base/json_internal.h"
#include "espalier/base/random.h"

namespace espalier {
namespace {

std::string utf8(int code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
}

/// GPT-2's printable stand-ins of the 256 bytes.
std::vector<std::string> byte_letters() {
  std::vector<std::string> letters(256);
  int next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    letters[static_cast<std::size_t>(b)] = utf8(printable ? b : next++);
  }
  return letters;
}

/// Byte-level BPE with merges that join blanks, line ends and a few words.
Tokenizer byte_level_tokenizer() {
  Json vocab = Json::object();
  int id = 0;
  for (const std::string& letter : byte_letters()) vocab[letter] = id++;
  const std::string space = byte_letters()[' '], newline = byte_letters()['\n'];
  Json merges = Json::array();
  const auto merge = [&](const std::string& a, const std::string& b) {
    merges.push_back(a + " " + b);
    vocab[a + b] = id++;
  };
  merge(newline, newline);
  merge(space, newline);
  merge(space, space);
  merge("t", "h");
  merge("th", "e");
  merge(space, "the");
  merge(".", newline);
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
  root["model"] = {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
  return Tokenizer::from_json(root.dump());
}

/// Llama-2 style: a blank in front of the text, byte fallback, no pre-tokenizer. Pieces cannot
/// start mid-text.
Tokenizer prefix_space_tokenizer() {
  Json vocab = Json::object();
  int id = 0;
  vocab["<unk>"] = id++;
  for (int b = 0; b < 256; ++b) vocab[format("<0x{:02X}>", b)] = id++;
  vocab["\u2581"] = id++;
  for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = id++;
  Json merges = Json::array();
  const auto merge = [&](const std::string& a, const std::string& b) {
    merges.push_back(a + " " + b);
    vocab[a + b] = id++;
  };
  merge("t", "h");
  merge("th", "e");
  merge("\u2581", "the");
  merge("\u2581", "\u2581");
  Json root;
  root["version"] = "1.0";
  root["added_tokens"] = Json::array();
  root["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "Prepend"}, {"prepend", "\u2581"}},
        {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}};
  root["pre_tokenizer"] = nullptr;
  root["post_processor"] = nullptr;
  root["decoder"] = nullptr;
  root["model"] = {{"type", "BPE"},        {"vocab", vocab},        {"merges", merges},
                   {"unk_token", "<unk>"}, {"byte_fallback", true}, {"fuse_unk", true}};
  return Tokenizer::from_json(root.dump());
}

/// Lines with every kind of border: runs of blanks and line ends, words at line starts, no final
/// newline.
std::string rough_text(std::size_t bytes) {
  static const std::vector<std::string> parts{
      "the", " the", "theory", "\n",    "\n\n",   " \n",  " \n ",   "  ",  "\t", ".",         ".\n",
      " x",  "W",    "\n\nW",  "\nthe", "\n the", "\r\n", "\u00e9", " = ", "12", "\n  \n the"};
  RandomStream stream(5, "rough text");
  std::string text;
  while (text.size() < bytes) text += parts[stream.below(parts.size())];
  return text;
}

class LoadTokenText : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& text) {
    const std::filesystem::path path =
        std::filesystem::path(::testing::TempDir()) / "espalier_token_text.txt";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
};

class CountingReporter : public Reporter {
 public:
  void log(LogLevel, std::string_view) override {}
  std::unique_ptr<ProgressPhase> phase(std::string_view name, std::int64_t,
                                       std::string_view) override {
    struct Phase : ProgressPhase {
      explicit Phase(int& n) : updates(n) {}
      void update(std::int64_t, std::string_view) override { ++updates; }
      int& updates;
    };
    names.emplace_back(name);
    return std::make_unique<Phase>(updates);
  }
  std::vector<std::string> names;
  int updates = 0;
};

TEST_F(LoadTokenText, PiecesEqualOneCall) {
  const std::string text = rough_text(900'000);
  const auto path = write(text);
  const Tokenizer tokenizer = byte_level_tokenizer();
  CountingReporter reporter;
  const TokenText loaded = load_token_text(path, tokenizer, reporter);
  EXPECT_EQ(loaded.ids, tokenizer.encode(text));
  EXPECT_EQ(loaded.sha256, sha256_hex(text));
  EXPECT_GE(reporter.updates, 4);
  ASSERT_EQ(reporter.names.size(), 1u);
  EXPECT_EQ(reporter.names[0], "tokenising espalier_token_text.txt");
}

TEST_F(LoadTokenText, AnEarlyStopGivesTheFirstIdsOfTheWhole) {
  const std::string text = rough_text(60'000);
  const auto path = write(text);
  for (const bool prefix_space : {false, true}) {
    const Tokenizer tokenizer = prefix_space ? prefix_space_tokenizer() : byte_level_tokenizer();
    const std::vector<TokenId> whole = tokenizer.encode(text);
    for (const std::int64_t n : {1, 2, 63, 64, 65, 500, 1777, 5000, 1'000'000}) {
      const TokenText part = load_token_text(path, tokenizer, silent_reporter(), true, n);
      const std::size_t count = std::min(whole.size(), static_cast<std::size_t>(n));
      ASSERT_EQ(part.ids, std::vector<TokenId>(whole.begin(),
                                               whole.begin() + static_cast<std::ptrdiff_t>(count)))
          << n << " tokens, prefix space " << prefix_space;
    }
  }
}

TEST_F(LoadTokenText, TextsWithoutAnyBorderAndEmptyTexts) {
  const Tokenizer tokenizer = byte_level_tokenizer();
  const std::string text(5000, 'a');
  EXPECT_EQ(load_token_text(write(text), tokenizer, silent_reporter(), true, 10).ids.size(), 10u);
  EXPECT_TRUE(load_token_text(write(""), tokenizer, silent_reporter()).ids.empty());
}

TEST_F(LoadTokenText, WikiTextFirstIdsOfSmolLM2) {
  const char* data = std::getenv("ESPALIER_DATA");
  const char* model = std::getenv("ESPALIER_SMOLLM2");
  if (!data || !model)
    GTEST_SKIP() << "set ESPALIER_DATA (holds text/wikitext2_test.txt) and ESPALIER_SMOLLM2 "
                    "(SmolLM2 folder or GGUF)";
  const Tokenizer tokenizer = Tokenizer::load(model);
  const auto file = std::filesystem::path(data) / "text" / "wikitext2_test.txt";
  const TokenText whole = load_token_text(file, tokenizer, silent_reporter());
  EXPECT_EQ(std::vector<TokenId>(whole.ids.begin(), whole.ids.begin() + 8),
            (std::vector<TokenId>{3717, 446, 6356, 2067, 5131, 46, 446, 3717}));
  std::ifstream in(file, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(whole.ids, tokenizer.encode(text));
  const TokenText part = load_token_text(file, tokenizer, silent_reporter(), true, 3072);
  EXPECT_EQ(part.ids, std::vector<TokenId>(whole.ids.begin(), whole.ids.begin() + 3072));
}

TokenText text_of(std::int64_t tokens) {
  TokenText text;
  text.path = "corpus.txt";
  for (std::int64_t i = 0; i < tokens; ++i) text.ids.push_back(static_cast<TokenId>(i));
  return text;
}

TEST(CutSegments, TakesWholeSegmentsInOrder) {
  const at::Tensor ids = cut_segments(text_of(11), 4);
  EXPECT_TRUE(at::equal(ids, at::tensor({0, 1, 2, 3, 4, 5, 6, 7}, at::kLong).view({2, 4})));
  EXPECT_EQ(cut_segments(text_of(11), 4, 1).size(0), 1);
  EXPECT_EQ(cut_segments(text_of(8), 4, 9).size(0), 2);
}

TEST(CutSegments, NamesTokensFoundAndNeeded) {
  try {
    cut_segments(text_of(300), 128, 0, 10);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_STREQ(error.what(),
                 "corpus.txt: holds 300 tokens, but 1,280 are needed (10 x 128 tokens)");
    EXPECT_EQ(error.hint_text(), "use at most 2 segments, or a longer text");
  }
  try {
    cut_segments(text_of(100), 128);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "corpus.txt: holds 100 tokens, but 128 are needed (1 x 128 tokens)");
    EXPECT_EQ(error.hint_text(), "use a longer text, or segments of at most 100 tokens");
  }
  EXPECT_THROW(cut_segments(text_of(100), 1), Error);
  EXPECT_THROW(cut_segments(text_of(100), 128, 0, INT64_MAX), Error);
}

}  // namespace
}  // namespace espalier
