// Fuzz target: the tokenizer in the metadata of a GGUF file. Inputs are whole files; only Error may
// escape, and what can be built must encode and decode consistently.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "espalier/base/error.h"
#include "espalier/base/file.h"
#include "espalier/base/format.h"
#include "espalier/base/temp_folder_internal.h"
#include "espalier/io/gguf.h"
#include "espalier/text/chat_template.h"
#include "espalier/text/tokenizer.h"

namespace {

using espalier::GgufValue;
using Metadata = std::vector<std::pair<std::string, GgufValue>>;

constexpr std::string_view kText =
    "<s>Hello,  w\xC3\xB6rld!\n\t12 \xF0\x9F\x91\x8D \xFF</s> ab aab";

/// A file in memory that GgufFile can open by name; one for the whole process.
std::string memory_file(const std::uint8_t* data, std::size_t size) {
  static const int descriptor = ::memfd_create("gguf_tokenizer_fuzz", MFD_CLOEXEC);
  if (descriptor < 0 || ::ftruncate(descriptor, static_cast<off_t>(size)) != 0 ||
      ::pwrite(descriptor, data, size, 0) != static_cast<ssize_t>(size))
    __builtin_trap();
  return espalier::format("/proc/self/fd/{}", descriptor);
}

void use(const espalier::Tokenizer& tokenizer) {
  const auto ids = tokenizer.encode(kText, {.add_special_tokens = true});
  espalier::StreamDecoder stream(tokenizer, false);
  std::string streamed;
  for (const auto id : ids) streamed += stream.push(id);
  streamed += stream.finish();
  if (streamed != tokenizer.decode(ids)) __builtin_trap();
  for (const auto id : {tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.unk()})
    if (id && (*id < 0 || *id >= tokenizer.vocab_size())) __builtin_trap();
  if (tokenizer.chat_template())
    static_cast<void>(espalier::ChatTemplate(*tokenizer.chat_template())
                          .encode(tokenizer, {{"user", "a"}}, true));
}

std::vector<std::uint8_t> file_with(const Metadata& metadata) {
  const espalier::TempFolder folder;
  espalier::GgufWriter(folder / "seed.gguf", metadata, {}).finish();
  const std::string bytes = espalier::read_file(folder / "seed.gguf");
  return {bytes.begin(), bytes.end()};
}

GgufValue types(const std::vector<std::int32_t>& values) { return GgufValue::i32s(values); }
GgufValue scores(const std::vector<float>& values) { return GgufValue::f32s(values); }

Metadata byte_level() {
  return {{"general.architecture", GgufValue::string("llama")},
          {"tokenizer.ggml.model", GgufValue::string("gpt2")},
          {"tokenizer.ggml.pre", GgufValue::string("smollm")},
          {"tokenizer.ggml.tokens", GgufValue::strings({"<s>", "</s>", "a", "b", "H", "e", "l", "o",
                                                        "ll", "He", "ab", "\xC4\xA0"})},
          {"tokenizer.ggml.token_type", types({3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 4, 1})},
          {"tokenizer.ggml.merges", GgufValue::strings({"l l", "H e", "a b"})},
          {"tokenizer.ggml.bos_token_id", GgufValue::u32(0)},
          {"tokenizer.ggml.eos_token_id", GgufValue::u32(1)},
          {"tokenizer.ggml.add_bos_token", GgufValue::boolean(true)},
          {"tokenizer.chat_template",
           GgufValue::string("{% for m in messages %}{{ m.role + m.content }}{% endfor %}")}};
}

Metadata sentencepiece() {
  return {{"general.architecture", GgufValue::string("llama")},
          {"tokenizer.ggml.model", GgufValue::string("llama")},
          {"tokenizer.ggml.tokens", GgufValue::strings({"<unk>", "<s>", "</s>", "<0x41>",
                                                        "\xE2\x96\x81", "h", "e", "he", "l"})},
          {"tokenizer.ggml.scores", scores({0, 0, 0, 0, -1, -2, -3, -1.5F, -4})},
          {"tokenizer.ggml.token_type", types({2, 3, 3, 6, 1, 1, 1, 1, 1})},
          {"tokenizer.ggml.bos_token_id", GgufValue::u32(1)},
          {"tokenizer.ggml.eos_token_id", GgufValue::u32(2)},
          {"tokenizer.ggml.unknown_token_id", GgufValue::u32(0)},
          {"tokenizer.ggml.add_space_prefix", GgufValue::boolean(true)}};
}

}  // namespace

/// Where the driver starts from; small enough that it cuts them at every byte.
extern "C" void espalier_fuzz_seeds(std::vector<std::vector<std::uint8_t>>& seeds);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" void espalier_fuzz_seeds(std::vector<std::vector<std::uint8_t>>& seeds) {
  seeds.push_back(file_with(byte_level()));
  seeds.push_back(file_with(sentencepiece()));
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    use(espalier::Tokenizer::from_gguf(espalier::GgufFile::open(memory_file(data, size))));
  } catch (const espalier::Error&) {
  }
  return 0;
}
