// How fast text becomes ids, and ids text. Uses the committed byte-level fixture, or the model file
// named by ESPALIER_SMOLLM2; the text is English-like and made here, so the numbers need no data.
#include <cstdlib>
#include <filesystem>
#include <string>

#include <benchmark/benchmark.h>

#include "espalier/base/file.h"
#include "espalier/base/random.h"
#include "espalier/text/tokenizer.h"

namespace espalier {
namespace {

std::filesystem::path testdata() {
  return std::filesystem::path(ESPALIER_SOURCE_DIR) / "espalier" / "text" / "testdata";
}

const Tokenizer& byte_level() {
  static const Tokenizer tokenizer = [] {
    const char* model = std::getenv("ESPALIER_SMOLLM2");
    return model != nullptr ? Tokenizer::load(model)
                            : Tokenizer::from_json(read_file(testdata() / "byte_level_bpe.json"));
  }();
  return tokenizer;
}

const Tokenizer& sentencepiece() {
  static const Tokenizer tokenizer = Tokenizer::from_sentencepiece(testdata() / "spm_bpe.model");
  return tokenizer;
}

/// Words by a rough Zipf law from 20,000 made-up ones, with punctuation.
std::string english(std::size_t bytes) {
  RandomStream random(7);
  std::vector<std::string> words(20'000);
  for (std::string& word : words) {
    const std::size_t length = 2 + random.below(9);
    for (std::size_t i = 0; i < length; ++i)
      word += "etaoinshrdlucmfwypvbgkjqxz"[std::min(random.below(26), random.below(26))];
  }
  std::string text;
  while (text.size() < bytes) {
    const double u = random.uniform();
    text += words[static_cast<std::size_t>(static_cast<double>(words.size()) * u * u * u * u)];
    text += random.below(12) == 0 ? ".\n" : " ";
  }
  return text;
}

void encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.encode(text));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
}

void BM_EncodeByteLevel(benchmark::State& state) {
  encode(state, byte_level(), english(4'000'000));
}
void BM_EncodeSentencePiece(benchmark::State& state) {
  encode(state, sentencepiece(), english(4'000'000));
}
void BM_EncodeShortLines(benchmark::State& state) { encode(state, byte_level(), english(100)); }
/// One word of the given length: time per byte must hardly grow with it.
void BM_EncodeLongWord(benchmark::State& state) {
  std::string word = english(static_cast<std::size_t>(state.range(0)));
  std::erase_if(word, [](char c) { return c < 'a' || c > 'z'; });
  encode(state, byte_level(), word);
}
void BM_Decode(benchmark::State& state) {
  const std::string text = english(4'000'000);
  const auto ids = byte_level().encode(text);
  for (auto _ : state) benchmark::DoNotOptimize(byte_level().decode(ids));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * text.size()));
}

BENCHMARK(BM_EncodeByteLevel)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_EncodeSentencePiece)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_EncodeShortLines);
BENCHMARK(BM_EncodeLongWord)
    ->Arg(100'000)
    ->Arg(1'000'000)
    ->Arg(10'000'000)
    ->Unit(benchmark::kMillisecond);
BENCHMARK(BM_Decode)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace espalier
