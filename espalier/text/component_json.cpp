// Members of tokenizer.json components with type checks.
#include "espalier/base/error.h"
#include "espalier/base/format.h"
#include "espalier/text/component_json_internal.h"

namespace espalier::text {
namespace {

const Json* member(const Json& object, const char* key) {
  if (!object.is_object())
    throw Error(ErrorKind::kInput, "tokenizer.json",
                format("expected an object around \"{}\", found {}", key, object.type_name()));
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

[[noreturn]] void wrong_type(const char* key, std::string_view wanted, const Json& value) {
  throw Error(ErrorKind::kInput, "tokenizer.json",
              format("\"{}\" is {}, expected {}", key, value.type_name(), wanted));
}

}  // namespace

std::string component_type(const Json& object, std::string_view what) {
  const Json* type = member(object, "type");
  if (type == nullptr)
    throw Error(ErrorKind::kInput, "tokenizer.json", format("a {} has no \"type\"", what));
  if (!type->is_string()) wrong_type("type", "a string", *type);
  return type->get<std::string>();
}

bool bool_member(const Json& object, const char* key, bool fallback) {
  const Json* value = member(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) wrong_type(key, "true or false", *value);
  return value->get<bool>();
}

std::string string_member(const Json& object, const char* key, std::string_view fallback) {
  const Json* value = member(object, key);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) wrong_type(key, "a string", *value);
  return value->get<std::string>();
}

std::string required_string(const Json& object, const char* key, std::string_view what) {
  if (member(object, key) == nullptr)
    throw Error(ErrorKind::kInput, "tokenizer.json", format("{} has no \"{}\"", what, key));
  return string_member(object, key, {});
}

std::int64_t int_member(const Json& object, const char* key, std::int64_t fallback) {
  const Json* value = member(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_number_integer()) wrong_type(key, "an integer", *value);
  return value->get<std::int64_t>();
}

bool is_literal_pattern(const Json& object, std::string* literal) {
  const Json* pattern = member(object, "pattern");
  if (pattern == nullptr || !pattern->is_object()) return false;
  const Json* text = member(*pattern, "String");
  if (text == nullptr || !text->is_string()) return false;
  *literal = text->get<std::string>();
  return true;
}

Regex pattern_member(const Json& object, std::string_view what) {
  std::string literal;
  if (is_literal_pattern(object, &literal)) return Regex::literal(literal);
  const Json* pattern = member(object, "pattern");
  if (pattern == nullptr)
    throw Error(ErrorKind::kInput, "tokenizer.json", format("{} has no \"pattern\"", what));
  if (!pattern->is_object())
    wrong_type("pattern", "{\"String\": ...} or {\"Regex\": ...}", *pattern);
  return Regex(required_string(*pattern, "Regex", format("the pattern of {}", what)));
}

const Json& sequence_member(const Json& object, const char* key, std::string_view what) {
  const Json* list = member(object, key);
  if (list == nullptr)
    throw Error(ErrorKind::kInput, "tokenizer.json",
                format("a {} Sequence has no \"{}\"", what, key));
  if (!list->is_array()) wrong_type(key, "a list", *list);
  return *list;
}

void refuse_component(std::string_view what, std::string_view type, std::string_view known) {
  throw Error(ErrorKind::kUnsupported, "tokenizer.json",
              format("the {} \"{}\" is not one that we have: {}", what, type, known));
}

}  // namespace espalier::text
