// Fields of rows: which there must be, which may be missing, and what the roles of chats are
// called.
#include <array>

#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/data/sft_samples_internal.h"

namespace espalier {
namespace {

std::string field_names(const TableValue& row) {
  std::string names;
  for (const auto& [name, value] : *row.fields()) {
    if (names.size() > 200) return names + ", ...";
    names += (names.empty() ? "" : ", ") + name;
  }
  return names.empty() ? "none" : names;
}

/// The text of a field; throws BadRow.
std::string required_text(const TableValue& row, std::string_view name) {
  const TableValue* value = row.find(name);
  if (value == nullptr)
    throw BadRow{format("field '{}' is missing (found: {})", name, field_names(row))};
  if (value->text() == nullptr)
    throw BadRow{format("field '{}' is {}, expected text", name, value->type_name())};
  return *value->text();
}

/// The same for a field that may be left out or null.
std::string optional_text(const TableValue& row, std::string_view name) {
  const TableValue* value = row.find(name);
  return value == nullptr || value->is_null() ? "" : required_text(row, name);
}

/// "user", "assistant" or "system" for a role as data sets write it; throws BadRow.
std::string role_of(const std::string& written, std::string_view field) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kRoles{{
      {"system", "system"},
      {"user", "user"},
      {"assistant", "assistant"},
      {"human", "user"},
      {"gpt", "assistant"},
      {"model", "assistant"},
  }};
  for (const auto& [name, role] : kRoles)
    if (written == name) return std::string(role);
  throw BadRow{
      format("{} is '{}', expected system, user or assistant (or human, gpt)", field, written)};
}

/// A message's words: text, or a list of parts whose texts are joined; throws BadRow.
std::string content_of(const TableValue& value, const std::string& field) {
  if (value.text() != nullptr) return *value.text();
  if (value.list() == nullptr)
    throw BadRow{format("{} is {}, expected text", field, value.type_name())};
  std::string text;
  for (const TableValue& part : *value.list()) {
    const TableValue* words = part.find("text");
    if (words == nullptr || words->text() == nullptr)
      throw BadRow{format("{} holds a part without text; only text can be trained on", field)};
    text += *words->text();
  }
  return text;
}

std::vector<ChatMessage> read_chat(const TableValue& row) {
  const bool share = row.find("messages") == nullptr && row.find("conversations") != nullptr;
  const std::string_view list_name = share ? "conversations" : "messages";
  const TableValue* list = row.find(list_name);
  if (list == nullptr)
    throw BadRow{format("field 'messages' is missing (found: {})", field_names(row))};
  if (list->list() == nullptr)
    throw BadRow{format("field '{}' is {}, expected a list", list_name, list->type_name())};
  if (list->list()->empty()) throw BadRow{format("field '{}' is empty", list_name)};
  std::vector<ChatMessage> messages;
  for (const TableValue& item : *list->list()) {
    const std::string at = format("{}[{}]", list_name, messages.size());
    if (item.fields() == nullptr)
      throw BadRow{format("{} is {}, expected an object", at, item.type_name())};
    // Either spelling in either list: data sets mix them.
    const std::string_view role_name = item.find("role") != nullptr ? "role" : "from";
    const std::string_view words_name = item.find("content") != nullptr ? "content" : "value";
    const TableValue* role = item.find(role_name);
    const TableValue* words = item.find(words_name);
    if (role == nullptr || words == nullptr) {
      throw BadRow{format(
          "{} has no {} (found: {})", at,
          role == nullptr ? (share ? "'from'" : "'role'") : (share ? "'value'" : "'content'"),
          field_names(item))};
    }
    if (role->text() == nullptr)
      throw BadRow{format("{}.{} is {}, expected text", at, role_name, role->type_name())};
    messages.push_back({role_of(*role->text(), format("{}.{}", at, role_name)),
                        content_of(*words, format("{}.{}", at, words_name))});
  }
  return messages;
}

SftSample read_sample(const TableValue& row, SftFormat format) {
  switch (format) {
    case SftFormat::kAlpaca:
    case SftFormat::kZero: {
      const std::string output = required_text(row, "output");
      const auto prompt = format == SftFormat::kZero ? zero_prompt : alpaca_prompt;
      PromptText text =
          prompt(required_text(row, "instruction"), optional_text(row, "input"), output);
      if (output.empty()) text.answer.clear();
      return text;
    }
    case SftFormat::kDolly: {
      const std::string response = required_text(row, "response");
      PromptText text =
          dolly_prompt(required_text(row, "instruction"), optional_text(row, "context"), response);
      if (response.empty()) text.answer.clear();
      return text;
    }
    case SftFormat::kCompletion:
      return PromptText{required_text(row, "prompt"), required_text(row, "completion")};
    case SftFormat::kChat:
      return read_chat(row);
    default:
      return PlainText{required_text(row, "text")};
  }
}

}  // namespace

SftFormat detect_sft_format(const TableValue& row, const std::string& where) {
  const auto has = [&](std::string_view name) { return row.find(name) != nullptr; };
  if (has("messages") || has("conversations")) return SftFormat::kChat;
  if (has("instruction") && has("output")) return SftFormat::kAlpaca;
  if (has("instruction") && has("response")) return SftFormat::kDolly;
  if (has("prompt") && has("completion")) return SftFormat::kCompletion;
  if (has("text")) return SftFormat::kText;
  throw Error(ErrorKind::kInput, where,
              format("the row's fields are of no layout we know (found: {})", field_names(row)))
      .hint(
          "rows need messages; instruction and output; instruction and response; prompt and "
          "completion; or text");
}

std::variant<SftSample, BadRow> read_sft_sample(const TableValue& row, SftFormat format) {
  try {
    return read_sample(row, format);
  } catch (BadRow& bad) {
    return std::move(bad);
  }
}

}  // namespace espalier
