// Fuzz target of this module: tokenizer.json, SentencePiece models and chat templates. The first
// byte of an input says which it is. Only Error may escape; the driver watches memory.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/base/error.h"
#include "espalier/text/chat_template.h"
#include "espalier/text/tokenizer.h"
#include "espalier/text/tokenizer_internal.h"

namespace {

constexpr std::string_view kText =
    "<s>Hello,  wörld!\r\n\t1234 \xF0\x9F\x91\x8D a\xCC\x81 \xFF</s> ab aab";

void use(const espalier::Tokenizer& tokenizer) {
  const auto ids = tokenizer.encode(kText, {.add_special_tokens = true});
  espalier::StreamDecoder stream(tokenizer, false);
  std::string streamed;
  for (const auto id : ids) streamed += stream.push(id);
  streamed += stream.finish();
  if (streamed != tokenizer.decode(ids)) __builtin_trap();
  static_cast<void>(tokenizer.encode(kText, {.special_in_text = false}));
}

void read_model(std::string_view bytes) {
  espalier::text::TokenizerContext context;
  auto description = espalier::text::read_sentencepiece(bytes, "fuzz", context);
  const auto impl = espalier::text::make_tokenizer(std::move(description), std::move(context));
  std::vector<espalier::TokenId> ids;
  if (impl->bpe) impl->bpe->encode("\xE2\x96\x81hello", ids);
  if (impl->unigram) impl->unigram->encode("\xE2\x96\x81hello", ids);
  static_cast<void>(impl->normalizer.apply("A\xCC\x81 \xEF\xAC\x81 x"));
}

std::vector<std::uint8_t> seed(char kind, std::string_view text) {
  std::vector<std::uint8_t> bytes(text.begin(), text.end());
  bytes.insert(bytes.begin(), static_cast<std::uint8_t>(kind));
  return bytes;
}

/// A protobuf field of wire type 2.
std::string field(int number, std::string_view body) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(body.size())} +
         std::string(body);
}

std::string piece(std::string_view text, char type) {
  return field(1, field(1, text) + std::string("\x15\x00\x00\x80\xBF\x18", 6) + type);
}

constexpr std::string_view kByteLevel =
    R"({"version":"1.0","added_tokens":[{"id":9,"content":"<s>","special":true,"normalized":false,"lstrip":true,"rstrip":true,"single_word":false},
{"id":10,"content":"ab","special":false,"normalized":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"Regex":"\\s{2,}"},"content":" "}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},
{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]}}},
"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","unk_token":"?","fuse_unk":false,"byte_fallback":false,"ignore_merges":true,"vocab":{"?":0,"a":1,"b":2,"H":3,"e":4,"l":5,"o":6,"ll":7,"He":8,"ab":9},"merges":["l l",["H","e"],"a b"]}})";
constexpr std::string_view kUnigram =
    R"({"added_tokens":[],"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"_"},{"type":"Lowercase"},{"type":"StripAccents"},{"type":"Strip"}]},
"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true},"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":1}]},
"model":{"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[["<unk>",0.0],["▁",-2.0],["h",-3.5],["e",-3.0],["he",-2.5],["l",-3.0],["o",-3.0],["llo",-2.25],["<0x31>",0],["ab",-4]]}})";
constexpr std::string_view kTemplate =
    R"({%- macro show(m, n=1) %}{{- m.content | trim | upper }}{% endmacro %}{% set ns = namespace(i=0, l=[1, 'a', {'k': 2.5}]) %}{# note #}
{%- for m in messages[::-1] if m.role != 'x' %}{% set ns.i = ns.i + loop.index0 * 2 % 3 %}{% if loop.first and not loop.last %}{{ show(m, n=2) }}{% elif m['role'] is in ['a'] %}{{ m | tojson(indent=2) }}{% else %}{{ m.content.split('o')[-1] ~ ns.i }}{% endif %}
{%- else %}{% continue %}{% endfor %}{{ ns.l | map('string') | join(', ') | replace('a', 'b') }}{% if add_generation_prompt %}{{ 'x' * 3 + "y\n\x41" if 1 < 2 <= 3 else none }}{% endif %}{% raw %}{{ }}{% endraw %}{% set b | trim %} {{ (1, 2)[0] // 2 }} {% endset %}{{ b }})";

}  // namespace

/// Where the driver starts from; small enough that it cuts them at every byte.
extern "C" void espalier_fuzz_seeds(std::vector<std::vector<std::uint8_t>>& seeds);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" void espalier_fuzz_seeds(std::vector<std::vector<std::uint8_t>>& seeds) {
  seeds.push_back(seed('j', kByteLevel));
  seeds.push_back(seed('j', kUnigram));
  seeds.push_back(seed('t', kTemplate));
  for (const char type : {'\x01', '\x02'}) {
    std::string model = piece("<unk>", 2) + piece("<s>", 3) + piece("h", 1) + piece("e", 1) +
                        piece("he", 1) + piece("\xE2\x96\x81", 1) + piece("<0x41>", 6) +
                        piece("user", 4);
    model += field(2, std::string{'\x18', type, '\x98', '\x02', '\x01'});
    // A table whose trie has two units, and settings.
    model += field(3, field(2, std::string("\x08\x00\x00\x00\x00\x04\x00\x00\x41\x01\x00\x00"
                                           "b\0c",
                                           15)) +
                          std::string("\x18\x01\x20\x01", 4));
    seeds.push_back(seed('m', model));
  }
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    if (data[0] == 'm') {
      read_model(bytes);
    } else if (data[0] == 't') {
      const espalier::ChatTemplate chat(bytes);
      static_cast<void>(
          chat.render({{"user", "Hello <s>"}, {"assistant", "ok"}}, true, {{"bos_token", "<s>"}}));
    } else {
      use(espalier::Tokenizer::from_json(bytes));
    }
  } catch (const espalier::Error&) {
  }
  return 0;
}
