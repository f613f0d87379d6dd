// ChatTemplate: parse once, render many times; and conversations to ids with the users' words kept
// apart.
#include "espalier/text/chat_template.h"

#include <algorithm>
#include <cctype>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/chat_template_internal.h"
#include "espalier/text/encode_internal.h"
#include "espalier/text/jinja_eval_internal.h"
#include "espalier/text/jinja_parser_internal.h"
#include "espalier/text/utf8_internal.h"

namespace espalier {
namespace {

using text::MarkedText;
using text::jinja::Value;

constexpr std::size_t kMaxTemplateBytes = 1 << 20;

/// A role that is a plain word counts as the template's own: some templates make special tokens of
/// it ("<|" + role +
/// "|>"). Anything else is treated like words of a message.
Value role_value(const std::string& role) {
  const bool plain = std::all_of(role.begin(), role.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-';
  });
  return plain ? Value(role) : Value(MarkedText::from_message(text::to_valid_utf8(role)));
}

}  // namespace

MarkedText ChatTemplate::Impl::render(const std::vector<ChatMessage>& messages,
                                      bool add_generation_prompt,
                                      const std::map<std::string, std::string>& strings) const {
  std::vector<Value> list;
  for (const ChatMessage& message : messages) {
    list.push_back(Value::dict({{Value("role"), role_value(message.role)},
                                {Value("content"), Value(MarkedText::from_message(
                                                       text::to_valid_utf8(message.content)))}}));
  }
  std::vector<std::pair<std::string, Value>> variables = {
      {"messages", Value::list(std::move(list))},
      {"add_generation_prompt", Value(add_generation_prompt)},
      {"tools", Value(nullptr)},
      {"documents", Value(nullptr)}};
  for (const auto& [name, value] : strings)
    variables.insert(variables.begin(), {name, Value(text::to_valid_utf8(value))});
  return text::jinja::Evaluator(body, std::move(variables)).run();
}

std::map<std::string, std::string> special_token_names(const Tokenizer& tokenizer) {
  std::map<std::string, std::string> strings;
  const auto name = [&](const char* key, std::optional<TokenId> id) {
    if (id) strings.emplace(key, tokenizer.id_to_token(*id));
  };
  name("bos_token", tokenizer.bos());
  name("eos_token", tokenizer.eos());
  name("pad_token", tokenizer.pad());
  name("unk_token", tokenizer.unk());
  return strings;
}

ChatTemplate::ChatTemplate(std::string_view jinja_source) : impl_(std::make_unique<Impl>()) {
  if (jinja_source.size() > kMaxTemplateBytes) {
    throw Error(
        ErrorKind::kUnsupported, "chat template",
        format("is {} bytes long; we run up to {}", jinja_source.size(), kMaxTemplateBytes));
  }
  if (!text::is_valid_utf8(jinja_source))
    throw Error(ErrorKind::kInput, "chat template", "is not valid UTF-8");
  impl_->body = text::jinja::parse_template(jinja_source);
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt,
                                 const std::map<std::string, std::string>& strings) const {
  return impl_->render(messages, add_generation_prompt, strings).bytes;
}

std::vector<TokenId> encode_chat(const Tokenizer& tokenizer,
                                 const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt) {
  if (!tokenizer.chat_template()) {
    throw Error(ErrorKind::kInput, "chat template", "the model comes without one")
        .hint("leave out --chat, or add chat_template.jinja to the model folder");
  }
  ChatTemplate chat(*tokenizer.chat_template());
  return chat.encode(tokenizer, messages, add_generation_prompt);
}

std::vector<TokenId> ChatTemplate::encode(const Tokenizer& tokenizer,
                                          const std::vector<ChatMessage>& messages,
                                          bool add_generation_prompt) const {
  const MarkedText prompt =
      impl_->render(messages, add_generation_prompt, special_token_names(tokenizer));
  return text::encode_marked(tokenizer.impl(), prompt.bytes, prompt.marks);
}

}  // namespace espalier
