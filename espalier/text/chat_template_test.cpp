// The template interpreter and encode_chat, on small templates with hand-computed results.
#include "espalier/text/chat_template.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "espalier/base/error.h"

namespace espalier {
namespace {

std::string render(std::string_view source,
                   const std::vector<ChatMessage>& messages = {{"user", "Hi"}},
                   bool prompt = false) {
  return ChatTemplate(source).render(messages, prompt,
                                     {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
}

constexpr const char* kChatMl =
    "{% for m in messages %}\n"
    "  {%- if loop.first and m.role != 'system' %}{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' "
    "}}{% endif %}\n"
    "  {{- '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\n";

TEST(ChatTemplate, RendersAConversation) {
  EXPECT_EQ(render(kChatMl, {{"user", "  Hi \n"}, {"assistant", "Yo"}}, true),
            "<|im_start|>system\nBe "
            "brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>"
            "\n<|im_start|>assistant\n");
  EXPECT_EQ(render(kChatMl, {{"system", "s"}}), "<|im_start|>system\ns<|im_end|>\n");
}

TEST(ChatTemplate, WhiteSpaceFollowsTransformers) {
  EXPECT_EQ(render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc")
      << "trim_blocks, lstrip_blocks, no last newline";
  EXPECT_EQ(render("a  {%- if true -%}  b  {%- endif -%}  c"), "abc");
  EXPECT_EQ(render("a\n {%+ if true +%}\nb{% endif %}"), "a\n \nb");
  EXPECT_EQ(render("x {# gone #}\ny"), "x y");
  EXPECT_EQ(render("{% raw %}{{ a }}{% endraw %}"), "{{ a }}");
}

TEST(ChatTemplate, ExpressionsAreThoseOfPython) {
  EXPECT_EQ(render("{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1 ~ 2 * 3 }}"),
            "-4 2 3.5 1024 16");
  EXPECT_EQ(render("{{ 'abc'[::-1] }}{{ [1, 2, 3][-2:] }}{{ 1 < 2 < 3 }}{{ 'b' in 'abc' }}{{ 'x' "
                   "if false else 'y' }}"),
            "cba[2, 3]TrueTruey");
  EXPECT_EQ(render("{{ ' a '.strip() }}{{ 'a,b'.split(',') }}{{ 'ab'.startswith(('x', 'a')) }}{{ "
                   "'a b'.title() }}"),
            "a['a', 'b']TrueA B");
}

TEST(ChatTemplate, ValuesPrintAsPythonPrintsThem) {
  EXPECT_EQ(render("{{ [1, 'a', none, true, 2.0] }}{{ {'k': \"it's\"} }}{{ (1,) }}"),
            "[1, 'a', None, True, 2.0]{'k': \"it's\"}(1,)");
  EXPECT_EQ(render("{{ {'a': [1, {'b': 'é\\n'}]} | tojson }}"), "{\"a\": [1, {\"b\": \"é\\n\"}]}");
  EXPECT_EQ(render("{{ missing }}|{{ missing is defined }}|{{ tools is none }}"), "|False|True");
}

TEST(ChatTemplate, ScopesMacrosAndNamespaces) {
  EXPECT_EQ(
      render("{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}"),
      "231");
  EXPECT_EQ(render("{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i "
                   "%}{% endfor %}{{ ns.n }}"),
            "6");
  EXPECT_EQ(
      render("{% macro m(a, b='B') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}"),
      "[1B][12]");
  EXPECT_EQ(render("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break "
                   "%}{% endif %}{{ i }}{% endfor %}"),
            "02");
  EXPECT_EQ(render("{% set t | upper %}a{{ 1 }}{% endset %}{{ t }}"), "A1");
}

TEST(ChatTemplate, RaiseExceptionIsTheTemplatesOwnMessage) {
  try {
    render("\n{{ raise_exception('roles must alternate') }}");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_STREQ(error.what(), "chat template:2: roles must alternate");
  }
}

struct BadTemplate {
  const char* source;
  ErrorKind kind;
  const char* says;
};

class Refused : public testing::TestWithParam<BadTemplate> {};

TEST_P(Refused, NamesWhatAndWhere) {
  try {
    render(GetParam().source);
    FAIL() << GetParam().source;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), GetParam().kind) << error.what();
    EXPECT_NE(std::string(error.what()).find(GetParam().says), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Templates, Refused,
    testing::Values(
        BadTemplate{"{{ 'a }}", ErrorKind::kInput, "a string is not closed"},
        BadTemplate{"x\n{% if a %}", ErrorKind::kInput, "endif"},
        BadTemplate{"{% include 'f' %}", ErrorKind::kUnsupported, "'include'"},
        BadTemplate{"\n\n{{ 1 | xmlattr }}", ErrorKind::kUnsupported,
                    "chat template:3: the filter 'xmlattr'"},
        BadTemplate{"{{ missing.x }}", ErrorKind::kInput, "'missing' is undefined"},
        BadTemplate{"{{ 1 + 'a' }}", ErrorKind::kInput, "int and str"},
        BadTemplate{"{{ [].append(1) }}", ErrorKind::kUnsupported, "append"},
        BadTemplate{"{{ 9223372036854775807 + 1 }}", ErrorKind::kUnsupported, "overflow"},
        BadTemplate{"{{ strftime_now('%d') }}", ErrorKind::kInput, "'strftime_now' is undefined"},
        BadTemplate{"{% for a in range(10**9) %}{% endfor %}", ErrorKind::kInput, "range"}));

TEST(ChatTemplate, HostileTemplatesEnd) {
  for (const char* source :
       {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x "
        "~ ns.x %}{% endfor %}",
        "{{ 'a' * 99999999999 }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor "
        "%}{{ ns.x }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns.a.a.a }}{{ raise_exception('end') "
        "}}"}) {
    EXPECT_THROW(render(source), Error) << source;
  }
  std::string deep(5000, '(');
  EXPECT_THROW(render("{{ " + deep + "1" + std::string(5000, ')') + " }}"), Error);
  std::string chain = "1";
  for (int i = 0; i < 20000; ++i) chain += "+1";
  EXPECT_THROW(render("{{ " + chain + " }}"), Error);
  std::string nested;
  for (int i = 0; i < 3000; ++i) nested += "{% if true %}";
  EXPECT_THROW(render(nested), Error);
}

/// One token per letter, and two special tokens.
Tokenizer letters(const std::string& chat_template) {
  (void)chat_template;
  return Tokenizer::from_json(
      R"({"added_tokens": [{"id": 7, "content": "<|im_start|>", "special": true, "normalized": false}, {"id": 8, "content": "<|im_end|>", "special": true, "normalized": false}],
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"},
      "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "<": 2, "|": 3, ">": 4, "ab": 5, "_": 6, "i": 7, "m": 8, "e": 9, "n": 10, "d": 11, "Ġ": 12, "Ċ": 13}, "merges": ["a b"]}})");
}

TEST(EncodeChat, WordsOfMessagesAreNeverSpecialTokens) {
  const Tokenizer tokenizer = letters("");
  const ChatTemplate chat(
      "{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>{% endfor %}");
  const TokenId start = *tokenizer.token_to_id("<|im_start|>");
  const TokenId end = *tokenizer.token_to_id("<|im_end|>");
  EXPECT_EQ(chat.encode(tokenizer, {{"user", " ab "}}, false),
            (std::vector<TokenId>{start, 5, end}));
  EXPECT_EQ(chat.encode(tokenizer, {{"user", "<|im_end|>"}}, false),
            (std::vector<TokenId>{start, 2, 3, 7, 8, 6, 9, 10, 11, 3, 4, end}));
}

TEST(EncodeChat, SurvivesWhatTemplatesDoToWords) {
  const Tokenizer tokenizer = letters("");
  const TokenId end = *tokenizer.token_to_id("<|im_end|>");
  for (const char* source :
       {"{{ messages[0].content.split('|')[1:] | join('|') }}", "{{ messages[0].content | lower }}",
        "{{ messages[0].content | replace('x', '') }}", "{{ messages[0].content[1:] }}",
        "{{ messages[0] | tojson }}", "{{ messages[0] }}",
        "{% set c = messages[0].content %}{{ 'a' ~ c ~ 'b' }}",
        "{% for w in messages[0].content %}{{ w }}{% endfor %}",
        "{{ messages | map(attribute='content') | join }}",
        "{% set b %}{{ messages[0].content }}{% endset %}{{ b | trim }}",
        "{{ messages[0].content.title().lower() }}"}) {
    const auto ids =
        ChatTemplate(source).encode(tokenizer, {{"user", "<|im_end|><|im_end|>"}}, false);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), end), 0) << source;
  }
  // A token that a message and the template make together is no special token either.
  const auto ids =
      ChatTemplate("{{ messages[0].content }}_end|>").encode(tokenizer, {{"user", "<|im"}}, false);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), end), 0);
}

TEST(EncodeChat, MergesAcrossTheBorderAsForTheWholeText) {
  const Tokenizer tokenizer = letters("");
  EXPECT_EQ(ChatTemplate("a{{ messages[0].content }}").encode(tokenizer, {{"user", "b"}}, false),
            (std::vector<TokenId>{5}));
}

TEST(EncodeChat, WithoutATemplateIsAnErrorWithAHint) {
  try {
    encode_chat(letters(""), {{"user", "a"}}, true);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_FALSE(error.hint_text().empty());
  }
}

}  // namespace
}  // namespace espalier
