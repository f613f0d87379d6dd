// Tokenizers against fixtures made by `tokenizers` and transformers (testdata/README.md), and
// hand-made small ones.
#include "espalier/text/tokenizer.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <unistd.h>

#include <gtest/gtest.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/json_internal.h"
#include "espalier/io/gguf.h"
#include "espalier/text/base64_internal.h"

namespace espalier {
namespace {

using Ids = std::vector<TokenId>;

std::filesystem::path testdata() {
  return std::filesystem::path(ESPALIER_SOURCE_DIR) / "espalier" / "text" / "testdata";
}

Tokenizer load_fixture(const std::string& name) {
  const auto path = testdata() / name;
  return path.extension() == ".model" ? Tokenizer::from_sentencepiece(path)
                                      : Tokenizer::from_json(read_file(path), name);
}

std::string stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special = false) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

class Fixture : public testing::TestWithParam<const char*> {};

TEST_P(Fixture, GivesTheIdsAndTextOfTheReference) {
  const Json expected = read_json_file(testdata() / "expected.json");
  const Json& reference = expected.at("tokenizers").at(GetParam());
  const Tokenizer tokenizer = load_fixture(GetParam());
  EXPECT_EQ(tokenizer.vocab_size(), reference.at("vocab_size").get<std::int64_t>());
  EXPECT_EQ(tokenizer.encode("a", {.add_special_tokens = true}),
            reference.at("around_a").get<Ids>());
  ASSERT_EQ(expected.at("lines").size(), 200u);
  for (std::size_t i = 0; i < expected.at("lines").size(); ++i) {
    const std::string line = text::base64_decode(expected.at("lines")[i].get<std::string>());
    const Json& row = reference.at("rows")[i];
    const auto ids = row.at("ids").get<Ids>();
    EXPECT_EQ(tokenizer.encode(line), ids) << "line " << i << ": " << line;
    const auto letters = row.contains("letters") ? row.at("letters").get<Ids>() : ids;
    EXPECT_EQ(tokenizer.encode(line, {.special_in_text = false}), letters)
        << "line " << i << ": " << line;
    EXPECT_EQ(tokenizer.decode(ids), row.at("text").get<std::string>()) << "line " << i;
    EXPECT_EQ(stream(tokenizer, ids), tokenizer.decode(ids)) << "line " << i;
    EXPECT_EQ(stream(tokenizer, ids, true), tokenizer.decode(ids, true)) << "line " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Fixture,
                         testing::Values("byte_level_bpe.json", "unigram.json", "spm_bpe.model",
                                         "spm_unigram.model"));

TEST(ByteLevelBpe, DecodeIsTheInverseOfEncode) {
  const Tokenizer tokenizer = load_fixture("byte_level_bpe.json");
  for (const std::string text : {"Hello,  world!\r\n\t", "日本語 👩‍👩‍👧‍👦",
                                 " \u00a0 x", "<s>kept</s>"}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
}

TEST(ByteLevelBpe, MergesByRankThenLeftmost) {
  // Ranks: a+a, aa+a, b+a. "aaab": aa a b -> aaa b. "baa": the pair a+a ranks before b+a.
  const Tokenizer tokenizer = Tokenizer::from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "aa": 2, "aaa": 3, "ba": 4},
      "merges": ["a a", ["aa", "a"], "b a"]}})");
  EXPECT_EQ(tokenizer.encode("aaab"), (Ids{3, 1}));
  EXPECT_EQ(tokenizer.encode("baa"), (Ids{1, 2}));
  EXPECT_EQ(tokenizer.encode("ba"), (Ids{4}));
  EXPECT_EQ(tokenizer.encode("aaaa"), (Ids{2, 2}));
  EXPECT_EQ(tokenizer.encode("xax"), (Ids{0}))
      << "unknown characters vanish without an unknown token";
  EXPECT_EQ(tokenizer.decode(Ids{3, 1}), "aaa b") << "no decoder: joined by spaces";
}

TEST(ByteLevelBpe, LongWordsMergeAsShortOnesDo) {
  // Above 24 symbols the heap takes over from the scan; both must agree on overlapping merges.
  const Tokenizer tokenizer = load_fixture("byte_level_bpe.json");
  std::string word;
  for (int i = 0; i < 40; ++i) word += i % 3 == 0 ? "the" : "aan";
  Ids whole = tokenizer.encode(word);
  EXPECT_EQ(tokenizer.decode(whole), word);
  const Tokenizer repeated = Tokenizer::from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0, "aa": 1, "aaaa": 2}, "merges": ["a a", "aa aa"]}})");
  for (int count = 1; count < 70; ++count) {
    Ids expected(static_cast<std::size_t>(count / 4), 2);
    if (count % 4 >= 2) expected.push_back(1);
    if (count % 2 == 1) expected.push_back(0);
    EXPECT_EQ(repeated.encode(std::string(static_cast<std::size_t>(count), 'a')), expected)
        << count;
  }
}

TEST(ByteLevelBpe, TwoMegabytesWithoutASpaceAreNotQuadratic) {
  const Tokenizer tokenizer = load_fixture("byte_level_bpe.json");
  std::string line(2'000'000, 'a');
  for (std::size_t i = 0; i < line.size(); i += 7) line[i] = static_cast<char>('b' + i % 20);
  const Ids ids = tokenizer.encode(line);
  EXPECT_EQ(tokenizer.decode(ids), line);
}

TEST(ByteLevelBpe, UnknownTokenFusesOnlyWhenAsked) {
  const std::string json =
      R"({"model": {"type": "BPE", "unk_token": "?", "fuse_unk": FUSE, "vocab": {"?": 0, "a": 1}, "merges": []}})";
  const auto with = [&](const char* fuse) {
    std::string text = json;
    text.replace(text.find("FUSE"), 4, fuse);
    return Tokenizer::from_json(text);
  };
  EXPECT_EQ(with("false").encode("axya"), (Ids{1, 0, 0, 1}));
  EXPECT_EQ(with("true").encode("axya"), (Ids{1, 0, 1}));
}

TEST(Unigram, TakesTheBestSum) {
  // "abc": ab+c = -3, a+bc = -2.5, a+b+c = -3.3. An unknown costs min - 10.
  const Tokenizer tokenizer = Tokenizer::from_json(
      R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<u>", 0], ["a", -1.1], ["b", -1.1], ["c", -1.1], ["ab", -1.9], ["bc", -1.4]]}})");
  EXPECT_EQ(tokenizer.encode("abc"), (Ids{1, 5}));
  EXPECT_EQ(tokenizer.encode("ab"), (Ids{4}));
  EXPECT_EQ(tokenizer.encode("axyb"), (Ids{1, 0, 2})) << "neighbouring unknowns are one";
}

TEST(AddedTokens, LongestMatchAndFlags) {
  const Tokenizer tokenizer = Tokenizer::from_json(R"({"added_tokens": [
      {"id": 30, "content": "<x>", "special": true, "normalized": false}, {"id": 31, "content": "<x>y", "special": false, "normalized": false},
      {"id": 32, "content": "<l>", "special": true, "normalized": false, "lstrip": true, "rstrip": true},
      {"id": 33, "content": "ab", "special": false, "normalized": false, "single_word": true}],
      "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, " ": 2}, "merges": []}})");
  EXPECT_EQ(tokenizer.encode("<x>ya"), (Ids{4, 0}))
      << "ids follow the vocabulary of 3, whatever the file says";
  EXPECT_EQ(tokenizer.encode("<x>a"), (Ids{3, 0}));
  EXPECT_EQ(tokenizer.encode("a  <l> b"), (Ids{0, 5, 1}));
  EXPECT_EQ(tokenizer.encode("ab aab"), (Ids{6, 2, 0, 0, 1}));
  EXPECT_EQ(tokenizer.encode("<x>a", {.special_in_text = false}), (Ids{0}));
  EXPECT_TRUE(tokenizer.is_special(3));
  EXPECT_FALSE(tokenizer.is_special(4));
  EXPECT_EQ(tokenizer.vocab_size(), 7);
  EXPECT_EQ(tokenizer.id_to_token(5), "<l>");
  EXPECT_EQ(tokenizer.id_to_token(99), "");
  EXPECT_EQ(tokenizer.token_to_id("<x>y"), 4);
  EXPECT_FALSE(tokenizer.token_to_id("zzz").has_value());
}

TEST(Vocabulary, GapsDecodeToNothing) {
  const Tokenizer tokenizer = Tokenizer::from_json(
      R"({"decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0, "b": 3}, "merges": []}})");
  EXPECT_EQ(tokenizer.vocab_size(), 4);
  EXPECT_EQ(tokenizer.id_to_token(1), "");
  EXPECT_EQ(tokenizer.decode(Ids{0, 1, 2, 3}), "ab");
}

TEST(StreamDecoder, HoldsBackUnfinishedCharacters) {
  const Tokenizer tokenizer = load_fixture("byte_level_bpe.json");
  const Ids ids = tokenizer.encode("\U0001F9F5");  // not in the training text: four byte tokens
  ASSERT_GT(ids.size(), 1u);
  StreamDecoder decoder(tokenizer);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(decoder.push(ids[i]), "");
  EXPECT_EQ(decoder.push(ids.back()), "\U0001F9F5");
  EXPECT_EQ(decoder.finish(), "");
  EXPECT_EQ(decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.finish(), "\uFFFD") << "what never completes becomes U+FFFD";
}

TEST(StreamDecoder, StripsSentencePiecesFirstSpaceOnce) {
  const Tokenizer tokenizer = load_fixture("spm_bpe.model");
  const Ids ids = tokenizer.encode("a tree a tree");
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  EXPECT_EQ(text + decoder.finish(), "a tree a tree");
}

TEST(Tokenizer, IdsOutOfRangeAreRefused) {
  const Tokenizer tokenizer = load_fixture("unigram.json");
  for (const TokenId id : {-1, static_cast<int>(tokenizer.vocab_size())}) {
    try {
      tokenizer.decode(Ids{id});
      FAIL() << id;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      EXPECT_NE(error.message().find(std::to_string(id)), std::string::npos);
    }
  }
}

TEST(Tokenizer, MayBeSharedByThreads) {
  const Tokenizer tokenizer = load_fixture("byte_level_bpe.json");
  const std::string text = read_file(testdata() / "expected.json").substr(0, 50'000);
  const Ids expected = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> equal(4, 0);
  for (std::size_t i = 0; i < equal.size(); ++i)
    threads.emplace_back([&, i] { equal[i] = tokenizer.encode(text) == expected; });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(equal, std::vector<int>(4, 1));
}

struct BadCase {
  const char* json;
  ErrorKind kind;
  const char* says;
};

class BadJson : public testing::TestWithParam<BadCase> {};

TEST_P(BadJson, IsRefusedWithTheReason) {
  try {
    Tokenizer::from_json(GetParam().json, "x/tokenizer.json");
    FAIL() << "accepted " << GetParam().json;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), GetParam().kind) << error.what();
    EXPECT_NE(std::string(error.what()).find(GetParam().says), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadJson,
    testing::Values(
        BadCase{"", ErrorKind::kInput, "not valid JSON"},
        BadCase{"{\"model\": ", ErrorKind::kInput, "not valid JSON"},
        BadCase{"[]", ErrorKind::kInput, "expected an object"},
        BadCase{"{}", ErrorKind::kInput, "no \"model\""},
        BadCase{R"({"model": {"type": "WordPiece", "vocab": {}}})", ErrorKind::kUnsupported,
                "WordPiece"},
        BadCase{R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}})",
                ErrorKind::kInput, "\"b\""},
        BadCase{R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}})",
                ErrorKind::kInput, "merge 0"},
        BadCase{R"({"model": {"type": "BPE", "vocab": {"a": 2000000000}, "merges": []}})",
                ErrorKind::kInput, "out of proportion"},
        BadCase{R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}})",
                ErrorKind::kInput, "given twice"},
        BadCase{R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})",
                ErrorKind::kInput, "-1"},
        BadCase{
            R"({"model": {"type": "BPE", "vocab": {}, "merges": [], "end_of_word_suffix": "</w>"}})",
            ErrorKind::kUnsupported, "</w>"},
        BadCase{
            R"({"model": {"type": "BPE", "vocab": {}, "merges": []}, "normalizer": {"type": "Magic"}})",
            ErrorKind::kUnsupported, "Magic"},
        BadCase{
            R"({"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": {"type": "UnicodeScripts"}})",
            ErrorKind::kUnsupported, "UnicodeScripts"},
        BadCase{
            R"({"model": {"type": "BPE", "vocab": {}, "merges": []}, "decoder": {"type": "CTC"}})",
            ErrorKind::kUnsupported, "CTC"},
        BadCase{
            R"({"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"}})",
            ErrorKind::kInput, "does not compile"},
        BadCase{
            R"({"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Isolated"}})",
            ErrorKind::kUnsupported, "&&"},
        BadCase{R"({"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 7}})",
                ErrorKind::kInput, "unk_id is 7"},
        BadCase{R"({"model": {"type": "Unigram", "vocab": []}})", ErrorKind::kInput, "empty"},
        BadCase{
            R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "b", "type_id": 0}}], "special_tokens": {"b": {"id": "b", "ids": [9], "tokens": ["b"]}}}})",
            ErrorKind::kInput, "leaves out the text"}));

TEST(Tokenizer, HostileRegexEndsInAnError) {
  const Tokenizer tokenizer = Tokenizer::from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "((a|aa)+)+[bc]"}, "behavior": "Isolated"}})");
  EXPECT_EQ(tokenizer.encode("aaa"), (Ids{0, 0, 0}));
  try {
    tokenizer.encode(std::string(200, 'a'));
    FAIL() << "the match limit did not hold";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
    EXPECT_FALSE(error.hint_text().empty());
  }
}

TEST(Folder, ConfigNamesTokensAndSettings) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("espalier_text_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, const std::string& text) {
    std::ofstream(folder / name) << text;
  };
  write("tokenizer.json",
        R"({"model": {"type": "BPE", "vocab": {"a": 0, "<b>": 1}, "merges": []}})");
  write("special_tokens_map.json",
        R"({"eos_token": {"content": "<e>"}, "bos_token": "<ignored>"})");
  write(
      "tokenizer_config.json",
      R"({"bos_token": "<b>", "add_bos_token": true, "chat_template": "T", "added_tokens_decoder": {"2": {"content": "<e>", "special": true}, "3": {"content": "<n>"}}})");
  const Tokenizer tokenizer = Tokenizer::from_folder(folder);
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 2);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.encode("a<e><n><b>", {.add_special_tokens = true}), (Ids{1, 0, 2, 3, 1}));
  EXPECT_TRUE(tokenizer.is_special(1)) << "a token named in the config is special";
  EXPECT_EQ(tokenizer.chat_template(), "T");
  write("chat_template.jinja", "J");
  EXPECT_EQ(Tokenizer::from_folder(folder).chat_template(), "J");
  std::filesystem::remove(folder / "tokenizer.json");
  try {
    Tokenizer::from_folder(folder);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_FALSE(error.hint_text().empty());
  }
  std::filesystem::remove_all(folder);
}

TEST(SmolLm2, GivesTheFirstIdsOfWikiText) {
  const char* model = std::getenv("ESPALIER_SMOLLM2");
  const auto text =
      std::filesystem::path(std::getenv("ESPALIER_DATA") != nullptr ? std::getenv("ESPALIER_DATA")
                                                                    : "") /
      "text" / "wikitext2_test.txt";
  if (model == nullptr || !std::filesystem::exists(model))
    GTEST_SKIP() << "set ESPALIER_SMOLLM2 to the GGUF file of SmolLM2-135M-Instruct";
  if (!std::filesystem::exists(text))
    GTEST_SKIP() << "set ESPALIER_DATA to the folder that holds text/wikitext2_test.txt";
  const Tokenizer tokenizer = Tokenizer::from_gguf(GgufFile::open(model));
  const std::string wiki = read_file(text);
  const Ids ids = tokenizer.encode(wiki);
  EXPECT_EQ(Ids(ids.begin(), ids.begin() + 8), (Ids{3717, 446, 6356, 2067, 5131, 46, 446, 3717}));
  EXPECT_EQ(tokenizer.decode(ids), wiki);
  EXPECT_FALSE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.eos(), 2);
}

}  // namespace
}  // namespace espalier
